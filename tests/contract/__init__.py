"""What every store must do: one suite, run against the real servers of every provider in ``providers.PROVIDERS``."""
