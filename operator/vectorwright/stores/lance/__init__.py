"""Lance tables in a directory, for the store server that owns it. It needs the extra ``lance``."""
