"""What decides outputs beside code and samples, such as a model's weights: one and the same for all
workers of a run whose outputs count.
"""

from __future__ import annotations

import json

from orchestrator.adapters.store.atomic_files import make_private_dir, write_json
from orchestrator.adapters.store.layout import RunFolder

IDENTITY = "identity.json"
SHOWN = 16


class OutputIdentity:
    """That of the first worker that said what it is; kept for later attempts and coordinators, as
    long as the run's ``configuration`` is the same.
    """

    def __init__(self, folder: RunFolder, configuration: str) -> None:
        self._work = folder.work
        self._configuration = configuration
        self._first: tuple[str, str] | None = None
        try:
            kept = json.loads((self._work / IDENTITY).read_bytes())
            if kept["configuration"] == configuration:
                self._first = (str(kept["node"]), str(kept["identity"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass  # nobody has said anything yet

    def unlike(self, node: str, identity: str) -> str:
        """How a worker differs from the first one; empty if it does not. Raises ``OSError``."""
        if self._first is None:
            self._first = (node, identity)
            kept = {"node": node, "identity": identity, "configuration": self._configuration}
            write_json(make_private_dir(self._work) / IDENTITY, kept)
        first, expected = self._first
        if identity == expected:
            return ""
        mine, theirs = (text[:SHOWN] or "none" for text in (identity, expected))
        return f"its model or what else decides outputs is {mine}, that of {first} is {theirs}"
