"""What load generators and load tests wrote."""
