"""One file a provider: how a store of it is reached, and the tuning of an index in it."""
