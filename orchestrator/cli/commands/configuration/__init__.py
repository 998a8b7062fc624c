"""Verbs about inventories, workloads and this tool."""
