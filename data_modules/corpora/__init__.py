"""Corpora: where clips and captions come from before they are prepared."""
