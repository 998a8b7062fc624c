"""Our figures and those of another tool, by its own definitions. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..judge.summary import Summary
from .tools import PeerFigures, PeerTool

PERCENTS = (50, 90, 99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One figure of both, in seconds or per second: ours before the tool's load and after it."""

    name: str
    ours: float
    again: float
    theirs: float

    @property
    def apart(self) -> float | None:
        """How much the mean of ours is above theirs, as a part of theirs; None of nothing."""
        return (self.ours + self.again) / 2 / self.theirs - 1 if self.theirs else None

    @property
    def drift(self) -> float | None:
        """How much ours is higher the second time, as a part of the first; None of nothing."""
        return self.again / self.ours - 1 if self.ours else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What both say about the same server: we, the tool, we again. ``asked``: requests of each."""

    tool: PeerTool
    asked: int
    theirs: PeerFigures
    pairs: tuple[Pair, ...]


def compare(
    tool: PeerTool, asked: int, before: Summary, after: Summary, theirs: PeerFigures
) -> Comparison:
    """Both summaries have our records by the tool's definitions. What any lacks is left out."""
    ours, again = dict(own_figures(before)), dict(own_figures(after))
    pairs = tuple(
        Pair(name=name, ours=ours[name], again=again[name], theirs=value)
        for name, value in theirs.figures.items()
        if name in ours and name in again
    )
    return Comparison(tool=tool, asked=asked, theirs=theirs, pairs=pairs)


def own_figures(summary: Summary) -> Iterator[tuple[str, float]]:
    """By the names that tools' figures have here."""
    rates = summary.rates()
    yield "requests_per_s", rates.requests
    yield "output_tokens_per_s", rates.output_tokens
    for spread in summary.spreads():
        yield f"{spread.name}_mean", spread.mean
        for percent in PERCENTS:
            yield f"{spread.name}_p{percent}", spread.at(percent)
