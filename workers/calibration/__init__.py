"""What is decided about early exits once the segments are exported: path times, thresholds, the promise."""
