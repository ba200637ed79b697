"""Preparation: from a corpus to a store, in pieces that processes share."""
