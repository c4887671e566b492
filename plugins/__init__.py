"""One folder for every group of endpoints; each is a plugin, and this package holds nothing else."""
