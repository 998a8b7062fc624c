"""What people are notified of, in one form for every target."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Occasion(StrEnum):
    """Why people are notified."""

    FINISHED = "finished"
    FAILED = "failed"
    DEGRADED = "degraded"
    REGRESSION = "regression"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """``subject``: one line; ``text``: what a person needs to go on, without secrets."""

    occasion: Occasion
    subject: str
    text: str
    run_id: str = ""
