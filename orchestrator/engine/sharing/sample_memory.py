"""What later coordinators and attempts of divisible work must know and no worker says again."""

from __future__ import annotations

import hashlib
import json

from orchestrator.adapters.store.atomic_files import make_private_dir, write_json
from orchestrator.core.model.request import RunRequest
from orchestrator.core.sharing.admission import Identity
from orchestrator.engine.support.context import RunContext

IDENTITY = "identity.json"
BEGAN = "began.json"


def digest_configuration(request: RunRequest) -> str:
    """What every worker of the run begins with, digested as the kit does."""
    samples = request.samples
    begun = [request.configuration, request.job.argv(), samples.group if samples else 0]
    return hashlib.sha256(json.dumps(begun).encode()).hexdigest()


class SampleMemory:
    """Files in the run's work folder. All writing raises ``OSError``."""

    def __init__(self, context: RunContext, configuration: str) -> None:
        self._folder = context.folder.work
        self._clock = context.clock
        self._configuration = configuration

    def recall_identity(self) -> Identity | None:
        """That of the first worker, as long as the run's configuration is the same."""
        try:
            kept = json.loads((self._folder / IDENTITY).read_bytes())
            if kept["configuration"] != self._configuration:
                return None
            return Identity(str(kept["node"]), str(kept["identity"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # no worker has said anything yet

    def keep_identity(self, node: str, identity: str) -> None:
        """For later attempts and coordinators."""
        kept = {"node": node, "identity": identity, "configuration": self._configuration}
        write_json(make_private_dir(self._folder) / IDENTITY, kept)

    def recall_began(self, attempt: int) -> float | None:
        """When its first lease was handed out, on this process's monotonic clock; None if that is
        not known.
        """
        try:
            kept = json.loads((self._folder / BEGAN).read_bytes())
            if kept["attempt"] != attempt:
                return None
            return self._clock.monotonic() - max(0.0, self._clock.wall() - float(kept["at"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep_began(self, attempt: int) -> None:
        """It is handed out now."""
        kept = {"attempt": attempt, "at": self._clock.wall()}
        write_json(make_private_dir(self._folder) / BEGAN, kept)
