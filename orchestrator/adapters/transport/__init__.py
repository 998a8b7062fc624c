"""Ways to run a command on a node: SSH by asyncssh (the default) or paramiko, and no SSH at all.

Start with ``open_transport``; the contract that all three keep is in
``adapters.transport.transport``. ``ssh`` is what both libraries share.
"""
