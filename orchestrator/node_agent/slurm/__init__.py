"""The node as part of a Slurm job."""
