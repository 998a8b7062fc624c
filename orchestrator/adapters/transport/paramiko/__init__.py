"""SSH by paramiko, for servers that asyncssh cannot talk to. Start with ``paramiko_ssh``."""
