"""Files of the cost model: what hardware is, what was measured, what a study writes."""
