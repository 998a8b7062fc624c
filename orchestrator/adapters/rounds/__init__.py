"""Arithmetic on what nodes have learned, and where its state is kept between rounds."""
