"""Whether a model that is divided over ranks says what the undivided one says."""
