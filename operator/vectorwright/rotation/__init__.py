"""Keys that reach a store: how they are made, proved and revoked, and when. One file a strategy and store."""
