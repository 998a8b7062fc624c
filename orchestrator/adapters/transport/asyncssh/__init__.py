"""SSH by asyncssh, the default. Start with ``async_ssh``."""

from orchestrator.adapters.transport.asyncssh.library_search import without_compilers

with without_compilers():
    import asyncssh  # noqa: F401 - before any module here does
