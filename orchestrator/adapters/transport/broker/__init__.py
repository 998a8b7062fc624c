"""A process of the user's that holds connections of the default transport for the next command.

``attach`` is the command's side, ``broker_process`` the broker's own; ``broker_messages`` is what
travels between.
"""
