"""Copying records as they are: from an index to another one, to a file, from a file. Nothing is parsed or embedded."""
