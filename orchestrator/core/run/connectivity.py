"""Whether nodes reach each other, before the launch and in mid-run: what was found out. Events.

``core.run.rendezvous`` and ``core.run.fallback`` decide what follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.base.wire_names import wire
from orchestrator.core.model.comm_modes import CommMode


@wire("RendezvousOffered")
@dataclass(frozen=True, slots=True, kw_only=True)
class RendezvousOffered:
    """The head node listens on a free ``port`` of all its addresses (for the reachability test)."""

    node: str
    port: int


@wire("Reached")
@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """Which of the head's addresses ``node`` could open a TCP connection to, in the order asked.

    ``via`` holds the node's own address of each connection; ``errors`` one text per failed address.
    """

    node: str
    addresses: tuple[str, ...]
    via: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


@wire("LinksProbed")
@dataclass(frozen=True, slots=True, kw_only=True)
class LinksProbed:
    """Nodes could not reach the head, so all of them dialled each other: what is at fault.

    ``reason`` is a sentence, "" where that explains nothing; ``culprits`` are the nodes, and
    ``links`` the (from, to) pairs of nodes, that it names. ``seconds``: how long it took.
    """

    reason: str
    seconds: float = 0.0
    culprits: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()


@wire("FabricProbed")
@dataclass(frozen=True, slots=True, kw_only=True)
class FabricProbed:
    """A real collective over all ranks was tried on ``rung``, before anything is launched.

    ``ok``: every value was right, over what the rung claims to use. ``reason`` says what was found,
    in a sentence; where all is right, only that it is slower than it should be. ``culprits`` are
    the nodes, and ``links`` the (from, to) pairs of nodes, that it could be
    narrowed down to. ``busbw_gbps`` in GB/s by nccl-tests' definition, ``floor_gbps`` what it was
    held against; None where nothing was measured or nothing is known. ``cached``: an earlier probe
    of the same nodes said so.
    """

    rung: CommMode
    ok: bool
    reason: str
    seconds: float
    culprits: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    busbw_gbps: float | None = None
    floor_gbps: float | None = None
    cached: bool = False


@wire("LinksBroken")
@dataclass(frozen=True, slots=True, kw_only=True)
class LinksBroken:
    """Nodes that reached each other before the launch do not any more, for ``seconds`` by now, and
    the ranks have made no progress since. ``links``: (from, to); ``at`` is the coordinator's wall
    clock in seconds.
    """

    links: tuple[tuple[str, str], ...]
    seconds: float
    at: float


class Fault(StrEnum):
    """What a failed attempt is put down to."""

    FABRIC = "fabric"
    OTHER = "other"


@wire("Classified")
@dataclass(frozen=True, slots=True, kw_only=True)
class Classified:
    """Why the attempt that just ended failed, from its logs and from another look at the links."""

    attempt: int
    fault: Fault
    reason: str
    links: tuple[tuple[str, str], ...] = ()
