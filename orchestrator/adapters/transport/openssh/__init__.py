"""SSH by the user's own ``ssh``, whose connections stay. Start with ``openssh``."""
