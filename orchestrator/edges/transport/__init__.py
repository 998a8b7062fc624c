"""Ways to run a command on a node: SSH by asyncssh (the default) or paramiko, and no SSH at all.

Start with :func:`orchestrator.edges.transport.connect.open_transport`; the contract that all three
keep is in :mod:`orchestrator.edges.transport.base`.
"""
