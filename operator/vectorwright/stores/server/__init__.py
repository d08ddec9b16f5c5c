"""The store server: owner and single writer of stores that live in files or in memory."""
