"""What the machine does: import, compress, export, measure."""
