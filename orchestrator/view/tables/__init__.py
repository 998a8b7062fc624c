"""Answers of nodes, plans and surveys as tables and text."""
