"""One file for each format of annotations that can be read."""
