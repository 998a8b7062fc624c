"""Everything that can happen to a run: facts in the past tense.

The engine journals each one before anybody acts on it. Plain data, which
``core.base.codec`` turns into JSON and back. What was found out about the network
between the nodes is in ``core.run.connectivity``, about ranks that make no progress in
``core.run.evidence``; what ranks report through the kit, in ``core.run.kit_reports``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.core.base.outcome import Outcome
from orchestrator.core.base.problem import Problem
from orchestrator.core.base.wire_names import wire, written_as
from orchestrator.core.model.container import ContainerImage
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.request import RunRequest
from orchestrator.core.model.scheduled_node import WIRE_KEY, ScheduledNode
from orchestrator.core.run.connectivity import (
    Classified,
    FabricProbed,
    LinksBroken,
    LinksProbed,
    Reached,
    RendezvousOffered,
)
from orchestrator.core.run.evidence import Inspected, Stalled
from orchestrator.core.run.kit_reports import EnergyReported, Progressed, Reported
from orchestrator.core.run.node_telemetry import TelemetryRead
from orchestrator.core.sharing.rounds import Exchanged


class Phase(StrEnum):
    """The phases of a run, in order; also the keys of ``timings``."""

    LOAD = "load"
    CONNECT = "connect"
    PROBE = "probe"
    SYNC = "sync"
    PREPARE = "prepare"
    RESERVE = "reserve"
    REACH = "reach"
    FABRIC = "fabric"
    LAUNCH = "launch"
    WATCH = "watch"
    STOP = "stop"
    COLLECT = "collect"
    CLEAN = "clean"
    CLASSIFY = "classify"
    CONCLUDED = "concluded"


@wire("Begun")
@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """The run was created and its directory exists."""


@wire("Resumed")
@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """A new coordinator took the run over, after a crash of the last one or on request.

    What was in flight and what lived in the old process is forgotten; what was done stays done.
    ``again``: the run had come to an end, and another attempt begins. ``epoch`` fences the old
    coordinator off; ``at`` is the coordinator's wall clock in seconds. ``request``: the changed
    code or configuration that was accepted for what is not yet launched.
    """

    epoch: int
    at: float
    again: bool = False
    request: RunRequest | None = None


@wire("Connected")
@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """The node's agent said hello. ``seconds`` since the attempt began."""

    node: str
    seconds: float


@wire("Probed")
@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """The node told its facts."""

    node: str
    facts: Facts


@wire("Synced")
@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """The node holds the snapshot ``digest`` completely. ``sent_bytes`` travelled for it."""

    node: str
    digest: str
    sent_files: int
    sent_bytes: int


@wire("Prepared")
@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The node's Python environment is ready; ranks run under ``interpreter`` (a path on the node).

    ``modules`` maps the modules that the workload requires to their versions; absent = not
    installed. ``environment`` is what puts the environment of the interpreter in force: values that
    only the node knows are ``{environment:NAME}``. ``scheduled``: what a scheduler told of the
    node, where one is to start the ranks. ``image``: whose interpreter that is.
    """

    node: str
    interpreter: str
    modules: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    scheduled: ScheduledNode | None = field(default=None, metadata=written_as(WIRE_KEY))
    image: ContainerImage | None = None


@wire("Reserved")
@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """Every node of the plan keeps its GPUs for this run."""


@wire("Occupied")
@dataclass(frozen=True, slots=True, kw_only=True)
class Occupied:
    """Another run has what this one needs on ``node``. ``holder`` says who, since when."""

    node: str
    holder: str


@wire("Divided")
@dataclass(frozen=True, slots=True, kw_only=True)
class Divided:
    """Where divisible work stands: at its beginning, now and then, and at its end.

    ``done`` samples have exactly one accepted output, ``failed`` ones were given up; ``duplicates``
    were answered more than once, ``conflicts`` with different outputs. ``final``: no more samples
    are handed out, because all are settled or because nobody is left to work on them.
    ``invalid``: why a load generator does not accept the test, "" if it does or there is none.
    """

    total: int
    done: int
    failed: int = 0
    duplicates: int = 0
    conflicts: int = 0
    final: bool = False
    invalid: str = ""

    @property
    def settled(self) -> int:
        """How many samples are done or given up."""
        return self.done + self.failed


@wire("RoundClosed")
@dataclass(frozen=True, slots=True, kw_only=True)
class RoundClosed:
    """What the nodes learned was averaged, or their gradients summed, which is told of now and then
    only. ``weights``: (node, rows that it had trained on); ``missing``: nodes whose part did not
    arrive in time; ``bytes`` travelled both ways.
    """

    round: int
    step: int
    weights: tuple[tuple[str, int], ...]
    missing: tuple[str, ...] = ()
    bytes: int = 0
    seconds: float = 0.0
    exchanged: Exchanged = Exchanged.CHANGES


@wire("Launched")
@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """The node's supervisor is up and has started the launcher."""

    node: str


@wire("RankStarted")
@dataclass(frozen=True, slots=True, kw_only=True)
class RankStarted:
    """A rank's process exists."""

    node: str
    rank: int
    pid: int


@wire("RankExited")
@dataclass(frozen=True, slots=True, kw_only=True)
class RankExited:
    """A rank ended. ``at`` is the node's wall clock corrected by its offset, in seconds.

    ``by_us``: the supervisor ended it, or its launcher in answer to an earlier failure.
    """

    node: str
    rank: int
    outcome: Outcome
    at: float
    last_line: str = ""
    by_us: bool = False


@wire("ProcessExited")
@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessExited:
    """A launcher or plain process ended."""

    node: str
    label: str
    outcome: Outcome
    at: float
    last_line: str = ""
    by_us: bool = False


@wire("Halting")
@dataclass(frozen=True, slots=True, kw_only=True)
class Halting:
    """The node's supervisor began to stop its ranks. ``why``: ``asked``, ``lease``,
    ``first-failure`` or ``terminated``; ``at`` is the node's wall clock corrected by its offset.
    """

    node: str
    why: str
    at: float


@wire("NodeConcluded")
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConcluded:
    """The node's supervisor is done. ``clean``: two scans found no process of the run."""

    node: str
    clean: bool
    survivors: tuple[str, ...] = ()
    why: str = ""


@wire("Collected")
@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """The node's outputs and logs are on the coordinator, verified by digest.

    ``left`` outputs did not come, for the reasons in ``left_out``, which names the first of them.
    """

    node: str
    files: int
    bytes: int
    links: int = 0
    left: int = 0
    left_out: tuple[str, ...] = ()


@wire("Swept")
@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """The node was scanned for processes of this run until two scans were empty, or not.

    ``gpu_drained``: the run's GPUs gave its memory back; None where there are none to ask.
    """

    node: str
    clean: bool
    killed: int = 0
    survivors: tuple[str, ...] = ()
    gpu_drained: bool | None = None


@wire("Cleared")
@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """What earlier attempts had left on the node was ended, or not, before the next one begins."""

    node: str
    clean: bool
    survivors: tuple[str, ...] = ()


@wire("Failed")
@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """An action on a node failed. ``phase`` is the phase that the action belongs to."""

    node: str
    phase: Phase
    problem: Problem


@wire("NodeLost")
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLost:
    """The link to the node broke and did not come back within its budget."""

    node: str
    problem: Problem


@wire("DeadlinePassed")
@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePassed:
    """The phase's time budget ran out."""

    phase: Phase
    after_s: float


class StopKind(StrEnum):
    """How urgently to stop."""

    GRACEFUL = "graceful"
    KILL = "kill"


@wire("StopRequested")
@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequested:
    """Somebody asked the run to stop. ``by`` names the cause: a signal, or ``orchestrate stop``.

    ``at`` is the coordinator's wall clock in seconds.
    """

    kind: StopKind
    by: str
    at: float


Event = (
    Begun
    | Resumed
    | Connected
    | Probed
    | Synced
    | Prepared
    | Reserved
    | Occupied
    | RendezvousOffered
    | Reached
    | LinksProbed
    | FabricProbed
    | LinksBroken
    | Classified
    | Divided
    | RoundClosed
    | Launched
    | RankStarted
    | RankExited
    | ProcessExited
    | Halting
    | NodeConcluded
    | Reported
    | Progressed
    | TelemetryRead
    | EnergyReported
    | Stalled
    | Inspected
    | Collected
    | Swept
    | Cleared
    | Failed
    | NodeLost
    | DeadlinePassed
    | StopRequested
)
