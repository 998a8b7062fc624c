"""SSH by asyncssh, the default. Start with ``async_ssh``."""
