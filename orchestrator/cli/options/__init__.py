"""Options of commands, and what their values mean."""
