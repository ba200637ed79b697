"""Tools for those who work on the suite; no part of what is installed."""
