"""What starts ranks: Slurm, MPI, Ray, SSH, and launchers in general."""
