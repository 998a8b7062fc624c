"""Steps of scripts/gpu_check that are too long for it."""
