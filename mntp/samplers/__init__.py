"""Samplers of the suite."""
