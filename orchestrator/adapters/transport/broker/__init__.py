"""A process of the user's that holds connections of the default transport for the next command.

``attach`` is the command's side, ``serve`` the broker's own; ``requests`` is what travels between.
"""
