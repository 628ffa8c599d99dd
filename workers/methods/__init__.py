"""The compression methods: one per file, the file's name is the method's id. They never import each other."""
