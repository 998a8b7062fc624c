"""What starts ranks: schedulers, MPI, SSH, and launchers in general."""
