"""Is the network between the nodes fit for collectives? What is tried, and what follows. Pure.

- ``mesh``: TCP connections between pairs of nodes, and what a matrix of them says
- ``pairing``: collectives between pairs of nodes, in rounds, and what they say
- ``trial``: what ranks told of a collective that was tried
- ``floor``: how fast it should be
"""
