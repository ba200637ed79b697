"""Scores of generated audio."""
