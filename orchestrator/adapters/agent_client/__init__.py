"""The node agent: ``node`` is the side that runs on nodes, the rest is the coordinator's."""
