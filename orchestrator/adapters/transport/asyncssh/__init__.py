"""SSH by asyncssh, the default. Start with ``async_ssh``."""

from orchestrator.adapters.transport.asyncssh.library_search import import_asyncssh

import_asyncssh()
