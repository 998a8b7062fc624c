"""What all parts of the engine share."""
