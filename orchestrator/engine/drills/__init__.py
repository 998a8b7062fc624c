"""Drills: runs of the product's own, disturbed on purpose, measured against its promises."""
