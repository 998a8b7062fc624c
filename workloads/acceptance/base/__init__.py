"""What every other part knows: options, ranks, units and statistics."""
