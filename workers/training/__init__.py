"""Training a model further: settings, losses, the loop and its epoch checkpoints."""
