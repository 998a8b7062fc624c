"""Detection of changes over nights, beside other rules."""
