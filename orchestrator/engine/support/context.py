"""What everything in one run shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from orchestrator.adapters.agent_client.connect_agent import AgentConnector, connect_agent
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.adapters.sync.code_snapshot import Snapshot
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.model.request import RunRequest
from orchestrator.core.run.events import Event
from orchestrator.engine.support.clock import Clock, SystemClock
from orchestrator.engine.support.interrupts import Interrupts
from orchestrator.engine.support.observer import Observer

# Events go to the loop; an exception posted there ends the run as our bug.
Post = Callable[[Event | BaseException], None]

# A run must notice a vanished node sooner than a single command: within 6 s, plus its silence.
LIMITS = ConnectLimits(keepalive_interval_s=2.0, keepalive_count=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """The request, the code that travels, where results go, who watches, who may interrupt.

    ``snapshot`` None: the run is only to be ended. ``dial`` opens the channels to agents.
    """

    request: RunRequest
    snapshot: Snapshot | None
    folder: RunFolder
    observers: Sequence[Observer]
    clock: Clock = field(default_factory=SystemClock)
    limits: ConnectLimits = field(default_factory=lambda: LIMITS)
    dial: AgentConnector = connect_agent
    interrupts: Interrupts = field(default_factory=Interrupts)

    def require_snapshot(self) -> Snapshot:
        """The code of a run that launches something."""
        assert self.snapshot is not None, "a run that is only to be ended brings no code"
        return self.snapshot

    def note(self, text: str) -> None:
        """Tell every observer something that is no event."""
        for observer in self.observers:
            observer.on_note(text)
