"""Host lists of other tools, read into inventories."""
