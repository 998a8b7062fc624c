"""Files of the cost model: GPUs, links, models, coefficients, studies; constants with sources."""
