"""What the GPUs of an attempt do while it runs, sampled beside the ranks."""
