"""What runs on a node: Python 3.8+, standard library only, no import from outside this folder."""
