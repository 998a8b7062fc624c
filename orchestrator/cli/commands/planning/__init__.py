"""Verbs that predict: studies on paper, and the cost model."""
