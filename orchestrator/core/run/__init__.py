"""A run as a state machine: events in, actions out."""
