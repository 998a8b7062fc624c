"""Charts as geometry, in the units of an SVG view box. Pure."""
