"""What people and other programs see of a load test."""
