"""What is kept so that a next command is quicker; anything here may be deleted at any time."""
