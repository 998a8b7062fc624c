"""Adapters to the world: transports, the node agent, files, reports. One small protocol each."""
