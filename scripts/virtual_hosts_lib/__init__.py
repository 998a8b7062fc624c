"""Virtual hosts: machines made of Linux namespaces, each with a real OpenSSH server.

They exist so that tests, benchmarks and people trying the tool can reach several "nodes" over
plain SSH on one machine, and break them in controlled ways.  Standard library only.
"""

from __future__ import annotations
