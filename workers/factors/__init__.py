"""One layer as a product of thinner ones: the arithmetic, and how the thin ones take its place in a graph."""
