"""OpenSSH's client configuration as text: lines, values and patterns, read as ``ssh`` 9.2 does."""
