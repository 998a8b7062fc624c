"""The verdict of a run, as the last JSON line, the report and the history show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.core.base.errors import ExitCode
from orchestrator.core.base.wire_names import wire
from orchestrator.core.captures.outcome import CaptureResult
from orchestrator.core.diagnosis.diagnosis_model import Diagnosis
from orchestrator.core.model.workload import Direction
from orchestrator.core.verdict.cost import Cost
from orchestrator.core.verdict.energy import Energy

# Why a node of a run that was stopped before its launch may not be clean.
NOT_LOOKED_AT = "an earlier attempt may have left processes or files; not checked"
SCHEMA_VERSION = 1


class Status(StrEnum):
    """How a run ended."""

    SUCCEEDED = "succeeded"
    DEGRADED = "degraded"
    FAILED = "failed"
    STOPPED = "stopped"


class Verdict(StrEnum):
    """What a gate says of a figure. A missing or invalid one never passes. Comparisons warn."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    WARN = "warn"
    FAIL = "fail"
    INVALID = "invalid"
    NOT_RUN = "not-run"
    UNGATED = "ungated"


@wire("MetricResult")
@dataclass(frozen=True, slots=True, kw_only=True)
class MetricResult:
    """A figure with its gate; ``value`` None = the workload did not report it. ``direction``: which
    change is for the better. ``terminal``: shown there without being asked for.
    """

    value: float | None
    unit: str
    verdict: Verdict = Verdict.UNGATED
    min: float | None = None
    max: float | None = None
    direction: Direction = Direction.INFO
    terminal: bool = True


def names_a_node(suffix: str, nodes: Iterable[str]) -> bool:
    """Whether a figure with this suffix is what one node did: ``vh1`` of ``tokens_per_s.vh1``, also
    ``vh1.0``, which is one of its ranks.
    """
    return any(f"{suffix}.".startswith(f"{node}.") for node in nodes)


@wire("NodeResult")
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeResult:
    """How one node ended: ``used``, ``excluded``, ``failed``, ``lost``, ``stopped`` or
    ``dirty``. ``ranks``: how many it was given.
    """

    name: str
    state: str
    reason: str = ""
    ranks: int = 0


@wire("RungResult")
@dataclass(frozen=True, slots=True, kw_only=True)
class RungResult:
    """One rung of the ladder: ``used``, ``failed`` or ``skipped``, and why."""

    rung: str
    outcome: str
    reason: str
    seconds: float | None = None


@wire("OutputsResult")
@dataclass(frozen=True, slots=True, kw_only=True)
class OutputsResult:
    """What came of one node's outputs. ``left`` did not; ``left_out`` names the first of them with
    the reasons, a file in the run's folder all.
    """

    files: int
    bytes: int
    links: int = 0
    left: int = 0
    left_out: tuple[str, ...] = ()


@wire("Samples")
@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Accounting of divisible work."""

    total: int
    done: int
    failed: int
    duplicates: int


@wire("FailureResult")
@dataclass(frozen=True, slots=True, kw_only=True)
class FailureResult:
    """The first cause. ``others`` are ranks that we stopped because of it; ``log`` and ``evidence``
    (a folder) are paths in the run's folder. ``diagnosis``: what the logs say clearly; None where
    no rule knows.
    """

    id: str
    cause: str
    node: str | None = None
    rank: int | None = None
    remedy: str = ""
    last_line: str = ""
    log: str = ""
    others: tuple[str, ...] = ()
    evidence: str = ""
    diagnosis: Diagnosis | None = None


@wire("PredictedMetric")
@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedMetric:
    """A figure that was predicted before the run, with the bounds that hold it in 90 % of runs, and
    what was measured. ``error``: predicted by measured - 1; ``inside``: the bounds held; ``cause``:
    what probably made the difference where they did not.
    """

    name: str
    unit: str
    predicted: float
    low: float
    high: float
    measured: float | None = None
    error: float | None = None
    inside: bool | None = None
    cause: str = ""


@wire("Result")
@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Everything a script needs to know of a finished run (docs/commands.md: the result object).
    ``notice``: what the workload wants everybody to know of its results. ``begins_anew``: another
    attempt continues nothing of this one, as a test of a load cannot be resumed.
    """

    run_id: str
    status: Status
    exit_code: ExitCode
    cluster: str
    workload: str
    launcher: str
    world_size: int
    ladder: tuple[RungResult, ...] = ()
    nodes: tuple[NodeResult, ...] = ()
    metrics: Mapping[str, MetricResult] = field(default_factory=dict)
    outputs: Mapping[str, OutputsResult] = field(default_factory=dict)
    samples: Samples | None = None
    energy: Energy | None = None
    cost: Cost | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    failure: FailureResult | None = None
    warnings: tuple[str, ...] = ()
    report: str = ""
    predictions: tuple[PredictedMetric, ...] = ()
    notice: str = ""
    begins_anew: bool = False
    captures: tuple[CaptureResult, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def used(self) -> tuple[NodeResult, ...]:
        """The nodes that ranks were started on. A refused run has ranks in its plan only."""
        return tuple(
            node
            for node in self.nodes
            if node.state not in {"excluded", "unused"} and node.reason != NOT_LOOKED_AT
        )

    @property
    def stayed(self) -> tuple[NodeResult, ...]:
        """The nodes that a run that got through was not without at its end."""
        return tuple(node for node in self.used if node.state not in {"lost", "failed"})
