"""What everything stands on: errors, outcomes, commands, names, the codec."""
