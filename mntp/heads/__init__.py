"""Heads of the suite."""
