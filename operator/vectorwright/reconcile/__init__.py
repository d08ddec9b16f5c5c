"""Reconciliation: observe, plan, apply, one file a kind."""
