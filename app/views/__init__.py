"""One page per file; each answers one question and has one main button."""
