"""Sends requests and takes down when what came."""
