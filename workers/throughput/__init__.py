"""How many samples per second a file answers: threads, parallel streams and batch sizes, within a budget."""
