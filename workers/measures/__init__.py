"""One number per file; the file name is its id. The catalogue finds them by looking."""
