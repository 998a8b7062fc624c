"""What each rank measures on its device, and what the driver reports of it."""
