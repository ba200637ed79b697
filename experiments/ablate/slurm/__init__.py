"""Running the cells of a plan on a SLURM cluster."""
