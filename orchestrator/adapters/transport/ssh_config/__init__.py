"""OpenSSH client configuration, read once and evaluated for each host as ``ssh`` 9.2 does.

Both SSH libraries bring a reader of their own, but they read the files again for every host and
disagree with OpenSSH in places. Tests compare this one with ``ssh -G``; what differs stands in
docs/inventory.md.
"""
