"""Backbones of the suite."""
