"""Systems of the suite."""
