"""What is to be run: workload.yaml, its parameters, a command of the user's own."""
