"""What ranks report through the kit: metrics, progress, and energy in measured windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.core.base.wire_names import wire


@wire("Reported")
@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A rank reported a metric through the kit.

    ``position``: the byte after the record in the rank's report file, by which a repeat is known.
    ``attempt``: the earlier one that it comes from, when it was heard of late; else None.
    """

    node: str
    rank: int
    name: str
    value: float
    unit: str
    step: int | None
    position: int = 0
    attempt: int | None = None


@wire("Progressed")
@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed:
    """A rank reported progress through the kit. Not journaled: only the latest one matters."""

    node: str
    rank: int
    done: float
    total: float
    unit: str
    fields: Mapping[str, float | str] = field(default_factory=dict)


@wire("GpuEnergy")
@dataclass(frozen=True, slots=True, kw_only=True)
class GpuEnergy:
    """One GPU by its UUID. ``joules`` by its counter, None = not known; ``integrated``: by the
    integral of its power, which has to agree.
    """

    gpu: str
    joules: float | None
    integrated: float | None = None


@wire("EnergyReported")
@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyReported:
    """A measured window of a rank, number ``window`` of its process, as far as it is.

    ``asked``: the rank asks for all GPUs of its node; ranks that do not have only ``work``, which
    maps ``requests``, ``tokens``, ``input_tokens`` and ``output_tokens`` to how many it did.
    ``peak_watts``: the most that the node's GPUs drew at one moment. ``problems``: why the energy
    is not valid. ``final``: the window was closed.
    """

    node: str
    rank: int
    window: int
    seconds: float
    asked: bool
    final: bool
    gpus: tuple[GpuEnergy, ...] = ()
    peak_watts: float | None = None
    problems: tuple[str, ...] = ()
    work: Mapping[str, float] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, int, int]:
        """By which a later report of the same window is known."""
        return self.node, self.rank, self.window
