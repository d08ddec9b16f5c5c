"""Stores: one file a provider, behind the protocol of :mod:`vectorwright.stores.base`."""
