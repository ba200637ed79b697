"""Tokenizers: audio <-> continuous tokens."""
