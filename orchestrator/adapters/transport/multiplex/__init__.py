"""Channels over the socket of a process that holds an SSH connection."""
