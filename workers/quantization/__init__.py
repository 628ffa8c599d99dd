"""What quantization is made of: the scheme, ranges, corrections, what stays float, and the gate."""
