"""What accuracy and time do when one layer alone is pruned or quantized."""
