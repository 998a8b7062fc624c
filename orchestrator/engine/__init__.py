"""The loop: await an event, journal it, step, perform the actions. All decisions live in core."""
