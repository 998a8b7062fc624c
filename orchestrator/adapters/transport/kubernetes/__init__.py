"""Pods as nodes: every command is one kubectl exec."""
