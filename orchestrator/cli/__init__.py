"""Commands: they parse options, call the layers below, and print. Decisions are made elsewhere."""
