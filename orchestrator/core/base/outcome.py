"""How a process or a remote command ended: a sum type that callers match exhaustively.

An SSH library reports a dead link in many ways (asyncssh returns an exit status of ``None`` without
raising); transports map all of them to :class:`Lost`, so that an unknown ending is never a success.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

from orchestrator.core.base.wire_names import wire


@wire("Exited")
@dataclass(frozen=True, slots=True)
class Exited:
    """The process ended by itself with ``code`` (0..255)."""

    code: int


@wire("Signalled")
@dataclass(frozen=True, slots=True)
class Signalled:
    """The process was ended by signal number ``signal``."""

    signal: int


@wire("TimedOut")
@dataclass(frozen=True, slots=True)
class TimedOut:
    """We gave up waiting after ``after_s`` seconds; the process was told to end."""

    after_s: float


@wire("Lost")
@dataclass(frozen=True, slots=True)
class Lost:
    """Nobody can tell how it ended: the link, the node or the supervisor went away."""

    reason: str


Outcome = Exited | Signalled | TimedOut | Lost


def has_succeeded(outcome: Outcome) -> bool:
    """Only a known exit status of zero is a success."""
    return outcome == Exited(0)


def signal_name(number: int) -> str:
    """``9`` -> ``SIGKILL``; a number that this platform does not name stays a number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def describe_outcome(outcome: Outcome) -> str:
    """A phrase that completes "rank 3 ..."."""
    match outcome:
        case Exited(code=code):
            return f"exited with code {code}"
        case Signalled(signal=number):
            return f"was killed by {signal_name(number)}"
        case TimedOut(after_s=seconds):
            return f"did not finish within {seconds:g} s"
        case Lost(reason=reason):
            return f"was lost ({reason})"
