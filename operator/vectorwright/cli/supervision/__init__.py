"""The operator as two processes: a slim parent that holds the Lease, and a child that does the work while it does."""
