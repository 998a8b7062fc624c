"""What people write of suites, and what a suite wrote of itself."""
