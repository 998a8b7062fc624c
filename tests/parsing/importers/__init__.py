"""Other tools' host lists, read beside the tools that own them."""
