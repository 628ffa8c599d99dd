"""Early exits: where they stand, what they are made of, when a sample takes one."""
