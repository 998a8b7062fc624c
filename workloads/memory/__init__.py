"""What a model needs of memory over time, and what holds it."""
