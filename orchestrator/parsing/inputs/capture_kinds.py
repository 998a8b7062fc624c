"""``--capture power,nvlink,profile=5@30``, and the same text in a suite's step."""

from __future__ import annotations

import math
from collections.abc import Iterable

from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.model.captures import PROFILE_AFTER_S, PROFILE_S, Capture, CaptureKind

MAX_PROFILE_S = 60.0  # what a rank records of itself grows with every kernel
MAX_AFTER_S = 86_400.0
OPTION = "--capture"


def parse_captures(given: Iterable[str], *, where: object = "") -> tuple[Capture, ...]:
    """Each text is a list with commas; the result is in the order of ``CaptureKind``.

    ``where``: the place in a file, if that is where they stand. Raises :class:`UsageError` for what
    is unknown, out of range, or asked for twice in different ways.
    """
    found: dict[CaptureKind, Capture] = {}
    for word in (part.strip() for text in given for part in text.split(",")):
        capture = _parse_capture(word, where)
        first = found.setdefault(capture.kind, capture)
        if first != capture:
            why = f"{first.text} and {capture.text}"
            raise _refusal(f"{capture.kind} is asked for twice", where, why, "leave one out")
    return tuple(found[kind] for kind in CaptureKind if kind in found)


def _parse_capture(word: str, where: object) -> Capture:
    name, equals, times = word.partition("=")
    if name not in list(CaptureKind):
        remedy = did_you_mean(name, [kind.value for kind in CaptureKind])
        raise _refusal(f"no capture is called {name[:80]!r}", where, "", remedy)
    kind = CaptureKind(name)
    if kind is CaptureKind.PROFILE:
        return _parse_profile(times, where) if equals else default_profile()
    if equals:
        remedy = f"write {kind} alone: it is sampled during the whole run"
        raise _refusal(f"{kind} takes no value", where, f"found {times[:80]!r}", remedy)
    return Capture(kind=kind)


def default_profile() -> Capture:
    """Of a step or two of most trainings, once they are warm."""
    return Capture(kind=CaptureKind.PROFILE, seconds=PROFILE_S, after_s=PROFILE_AFTER_S)


def _parse_profile(times: str, where: object) -> Capture:
    seconds, at, after = times.partition("@")
    length = _parse_seconds(seconds, where, MAX_PROFILE_S)
    after_s = _parse_seconds(after, where, MAX_AFTER_S) if at else PROFILE_AFTER_S
    if length == 0:
        raise _refusal("a profile of 0 seconds", where, "", "for example profile=5@30")
    return Capture(kind=CaptureKind.PROFILE, seconds=length, after_s=after_s)


def _parse_seconds(text: str, where: object, most: float) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= most:
        why = f"expected 0 to {most:g} seconds, found {text[:80]!r}"
        what = "a profile is written profile=SECONDS@AFTER"
        raise _refusal(what, where, why, "for example profile=5@30")
    return seconds


def _refusal(what: str, where: object, why: str, remedy: str) -> UsageError:
    return UsageError(f"{OPTION}: {what}", id="run.capture", where=where, why=why, remedy=remedy)
