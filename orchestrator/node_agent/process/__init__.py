"""Processes of a run on one node: started, recorded, found, ended."""
