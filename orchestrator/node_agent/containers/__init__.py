"""Containers on this node: images are made ready, what outlived its command is removed."""
