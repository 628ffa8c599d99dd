"""Channels and blocks: which go together, which matter least, what is gained when they go."""
