"""Running the cells of a plan on this machine."""
