"""Where the time of a profiled rank went: kernels, communication, copies and gaps that add up.

Of everything that runs at one moment each gets an equal part of it, so that all parts and the gaps
together are the time from the first event to the end of the last one. Of operators that call each
other, on one thread, the innermost runs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

COMMUNICATION, COPIES, COMPUTE, GAPS = "communication", "copies", "compute", "gaps"
# How names begin or go on of what moves data between ranks: NCCL's kernels, torch's operators.
COLLECTIVE_WORDS = ("nccl", "c10d::", "gloo:")
US = 1e-6

Event = tuple[float, float, int, int]  # (start, duration, lane, name); times in microseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class RankProfile:
    """What one rank recorded of itself over ``steps`` whole steps. ``reason``: why it is not there.

    ``device``: ``gpu`` (kernels and copies by stream) or ``cpu`` (operators by thread). ``kinds``
    belong to ``names``: ``kernel``, ``copy`` or ``operator``. ``asked``: the script leaves what was
    profiled out of its figures. ``dropped``: events beyond the bound.
    """

    rank: int
    reason: str = ""
    tool: str = ""
    device: str = ""
    seconds: float = 0.0
    steps: int = 0
    asked: bool = False
    names: Sequence[str] = ()
    kinds: Sequence[str] = ()
    events: Sequence[Event] = ()
    dropped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFigures:
    """All runs of one name. ``seconds``: its part of the time; ``alone_s``: the sum of durations,
    as if each had run by itself.
    """

    name: str
    category: str
    count: int
    seconds: float
    alone_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileFigures:
    """``seconds`` is the sum of ``categories``, which is that of ``kernels`` and the gaps.

    ``hidden_s``: of communication, while something else ran, too.
    """

    seconds: float
    kernels: Sequence[KernelFigures]
    categories: Mapping[str, float]
    gaps: int
    longest_gap_s: float
    hidden_s: float


def category_of(name: str, kind: str) -> str:
    """Of one name."""
    lower = name.lower()
    if any(word in lower for word in COLLECTIVE_WORDS):
        return COMMUNICATION
    return COPIES if kind == "copy" else COMPUTE


class _Sums:
    def __init__(self) -> None:
        self.parts: defaultdict[int, float] = defaultdict(float)
        self.gaps: list[float] = []
        self.hidden = 0.0


def profile_figures(profile: RankProfile) -> ProfileFigures | None:
    """None without events."""
    if not profile.events:
        return None
    categories = [category_of(*pair) for pair in zip(profile.names, profile.kinds, strict=True)]
    sums = _Sums()
    for took, running in _moments(profile.events):
        if not running:
            sums.gaps.append(took)
            continue
        for name in running:
            sums.parts[name] += took / len(running)
        among = {categories[name] == COMMUNICATION for name in running}
        sums.hidden += took if len(among) == 2 else 0.0
    return _collect(profile, categories, sums)


def _moments(events: Sequence[Event]) -> Iterator[tuple[float, list[int]]]:
    """(how long, names that run meanwhile: of each lane the one that began last), in order."""
    begins = [(start, 1, place) for place, (start, *_) in enumerate(events)]
    ends = [(start + took, 0, place) for place, (start, took, *_) in enumerate(events)]
    points = sorted([*begins, *ends])
    open_in: dict[int, list[int]] = {}
    begun: set[int] = set()
    for (t, is_begin, place), (following, *_) in pairwise([*points, points[-1]]):
        lane = open_in.setdefault(events[place][2], [])
        if is_begin and events[place][0] + events[place][1] > t:
            lane.append(place)
            begun.add(place)
        elif place in begun and not is_begin:
            lane.remove(place)
        if following > t:
            yield following - t, [events[lane[-1]][3] for lane in open_in.values() if lane]


def _collect(profile: RankProfile, categories: Sequence[str], sums: _Sums) -> ProfileFigures:
    counts = Counter(name for *_, name in profile.events)
    alone: defaultdict[int, float] = defaultdict(float)
    for _, took, _, name in profile.events:
        alone[name] += took
    kernels = [
        KernelFigures(
            name=profile.names[name],
            category=categories[name],
            count=count,
            seconds=sums.parts[name] * US,
            alone_s=alone[name] * US,
        )
        for name, count in counts.items()
    ]
    by_category = dict.fromkeys((COMPUTE, COMMUNICATION, COPIES), 0.0)
    for kernel in kernels:
        by_category[kernel.category] += kernel.seconds
    by_category[GAPS] = sum(sums.gaps) * US
    return ProfileFigures(
        seconds=sum(by_category.values()),
        kernels=sorted(kernels, key=lambda kernel: (-kernel.seconds, kernel.name)),
        categories=by_category,
        gaps=len(sums.gaps),
        longest_gap_s=max(sums.gaps, default=0.0) * US,
        hidden_s=sums.hidden * US,
    )
