"""A run while it goes: live, plain, as JSON lines."""
