"""What ``sample_machine`` takes in and gives out: records of workers, events, actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.sharing.leases import Worker
from orchestrator.core.sharing.ledger import OutputLocation
from orchestrator.core.sharing.sample_rates import Rate

# ---- what workers say ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker is there, with this configuration; ``identity`` is what else decides its outputs.
    ``per_s``: samples per second that it reached while it warmed up; 0 = not measured.
    """

    configuration: str
    identity: str = ""
    per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LeaseAck:
    """A worker took feed number ``feed``: a lease of ``groups``, or none if it was another word."""

    feed: int
    lease: str
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FirstToken:
    """The first part of a sample's output is there."""

    sample: int


@dataclass(frozen=True, slots=True)
class Output:
    """One sample's output; ``digest`` is that of its line in the merged outputs."""

    sample: int
    digest: bytes
    seconds: float
    amounts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SampleFailed:
    """A sample cannot be done."""

    sample: int
    reason: str


@dataclass(frozen=True, slots=True)
class Worked:
    """All samples of ``groups`` are answered; the worker was busy for ``busy_s`` so far."""

    groups: tuple[int, ...]
    busy_s: float


Record = Ready | LeaseAck | FirstToken | Output | SampleFailed | Worked

# ---- what happened ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecordRead:
    """A worker's line in this attempt or an earlier one; a ``record`` that is text says what is
    wrong with the line.
    """

    attempt: int
    worker: Worker
    record: Record | str
    place: OutputLocation


@dataclass(frozen=True, slots=True)
class NodesSeen:
    """How the nodes of the plan are: each rank, and whether it is ``gone``; whether all nodes are
    ``connected``, all that ended ones wrote is here (``drained``), and the run is to end.
    """

    gone: Mapping[Worker, bool]
    connected: bool
    drained: bool
    halted: bool


@dataclass(frozen=True, slots=True)
class AckMatched:
    """Which of our feeds a worker will never see, and the groups it took from a coordinator before
    this one.
    """

    worker: Worker
    unseen: tuple[tuple[int, ...], ...]
    foreign: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """Nothing reaches a worker any more."""

    worker: Worker
    reason: str


@dataclass(frozen=True, slots=True)
class SamplesIssued:
    """A load generator asks for ``count`` more samples."""

    count: int


@dataclass(frozen=True, slots=True)
class IssueEnded:
    """It will ask for no more."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Everything that was there has been read."""


@dataclass(frozen=True, slots=True)
class LastRecordsRead:
    """After ``Finish``: what workers wrote until their end is here."""


@dataclass(frozen=True, slots=True)
class OutputsMerged:
    """After that: the merged outputs are written, or cannot be."""


SampleEvent = (
    RecordRead
    | NodesSeen
    | AckMatched
    | Undeliverable
    | SamplesIssued
    | IssueEnded
    | Tick
    | LastRecordsRead
    | OutputsMerged
)

# ---- what to do ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendLease:
    """Give a worker these groups, in the order in which it is to work."""

    worker: Worker
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SendRecall:
    """A worker need not begin with these groups any more."""

    worker: Worker
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SendEnd:
    """Nothing is left to do."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class SendRefusal:
    """A worker's outputs cannot be taken."""

    worker: Worker
    reason: str


@dataclass(frozen=True, slots=True)
class MatchAck:
    """Compare with what was fed; ``AckMatched`` follows."""

    worker: Worker
    ack: LeaseAck


@dataclass(frozen=True, slots=True)
class KeepIdentity:
    """Remember for later attempts what decides the outputs of the first worker."""

    node: str
    identity: str


@dataclass(frozen=True, slots=True)
class KeepBegin:
    """Remember that the attempt's first lease is handed out now."""


@dataclass(frozen=True, slots=True)
class ForwardFirstToken:
    """Tell who asked for the sample that its output has begun."""

    sample: int


@dataclass(frozen=True, slots=True)
class ForwardAnswer:
    """Tell who asked for the sample that it is answered, with these amounts, or given up."""

    sample: int
    amounts: Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class MergeOutputs:
    """Write all outputs in one file: each sample has its one."""


@dataclass(frozen=True, slots=True)
class ReportStanding:
    """Where the work stands; ``final``: for good. ``leased``: samples that workers have leases of,
    about; of a group that is begun all samples count.
    """

    total: int
    done: int
    failed: int
    duplicates: int
    conflicts: int
    per_s: float
    leased: int
    final: bool = False


@dataclass(frozen=True, slots=True)
class ReportRate:
    """A figure of the whole attempt."""

    rate: Rate


@dataclass(frozen=True, slots=True)
class SayNote:
    """A line for people."""

    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """There is nothing more to wait for."""


SampleAction = (
    SendLease
    | SendRecall
    | SendEnd
    | SendRefusal
    | MatchAck
    | KeepIdentity
    | KeepBegin
    | ForwardFirstToken
    | ForwardAnswer
    | MergeOutputs
    | ReportStanding
    | ReportRate
    | SayNote
    | Finish
)
