"""How readers are driven: guided by what they cover, or by hypothesis."""
