"""Everything that the coordinator can do: imperatives.

The machine gives each a deterministic identity, so that doing one twice is recognised as a repeat.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.base.wire_names import wire
from orchestrator.core.model.comm_modes import CommMode
from orchestrator.core.model.plan import NodePlan


@wire("Connect")
@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """Open the transport and start the agent."""

    node: str


@wire("Probe")
@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Ask the node for its facts."""

    node: str


@wire("Clear")
@dataclass(frozen=True, slots=True, kw_only=True)
class Clear:
    """End what earlier attempts left on the node, and verify."""

    node: str


@wire("Sync")
@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """Bring the snapshot to the node."""

    node: str


@wire("Prepare")
@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Make sure that the node's Python environment exists."""

    node: str


@wire("Reserve")
@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """Take the locks of every node in the plan: all of them, or none."""


@wire("OfferRendezvous")
@dataclass(frozen=True, slots=True, kw_only=True)
class OfferRendezvous:
    """Choose a free port on the head node and listen there for a moment, the ``round``-th time."""

    node: str
    round: int = 1


@wire("Reach")
@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Try to open a TCP connection from ``node`` to each of the head's addresses."""

    node: str
    addresses: tuple[str, ...]
    port: int
    round: int = 1


@wire("ProbeLinks")
@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeLinks:
    """Let all nodes of the plan dial each other: the head was not reached, and why is not known."""


@wire("ProbeFabric")
@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFabric:
    """Try a real collective over all ranks of the plan, and find who is to blame if it fails."""

    rung: CommMode


@wire("Serve")
@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """Feed the ranks over SSH with what they work on: leases of samples, or averaged rounds."""

    rung: CommMode


@wire("Classify")
@dataclass(frozen=True, slots=True, kw_only=True)
class Classify:
    """Find out why the attempt failed, now that all its logs are here."""

    attempt: int


@wire("Launch")
@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Start the node's supervisor with the processes that ``share`` names, unless it has one."""

    node: str
    share: NodePlan


@wire("Follow")
@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """Watch the node's supervisor, from where its logs end here, and keep its lease alive."""

    node: str


@wire("Inspect")
@dataclass(frozen=True, slots=True, kw_only=True)
class Inspect:
    """Look at all ranks of ``node`` because of suspicion number ``stall`` of this attempt."""

    node: str
    stall: int


@wire("Stop")
@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Tell the node's supervisor to stop: TERM, grace, KILL."""

    node: str
    grace_s: float


@wire("Collect")
@dataclass(frozen=True, slots=True, kw_only=True)
class Collect:
    """Pull outputs and the rest of the logs."""

    node: str


@wire("Sweep")
@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Scan the node for processes of this run, end them, verify."""

    node: str


@wire("Conclude")
@dataclass(frozen=True, slots=True, kw_only=True)
class Conclude:
    """Write verdict and report; the run is over."""


Action = (
    Connect
    | Probe
    | Clear
    | Sync
    | Prepare
    | Reserve
    | OfferRendezvous
    | Reach
    | ProbeLinks
    | ProbeFabric
    | Serve
    | Classify
    | Launch
    | Follow
    | Inspect
    | Stop
    | Collect
    | Sweep
    | Conclude
)
