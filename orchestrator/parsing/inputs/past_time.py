"""Moments in the past as people write them: ``7d``, ``12h``, ``2026-11-01``."""

from __future__ import annotations

import re
from datetime import datetime

from orchestrator.core.base.errors import UsageError

_AGE = re.compile(r"([0-9]{1,6})\s*([mhdw])")
_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}


def parse_past_time(text: str, now: float) -> float:
    """Seconds since the epoch; a date without a zone is in this machine's. Raises
    :class:`UsageError`.
    """
    age = _AGE.fullmatch(text.strip())
    if age:
        return now - int(age[1]) * _SECONDS[age[2]]
    try:
        return datetime.fromisoformat(text.strip()).astimezone().timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"{text!r} is no moment that is understood",
            id="usage.time",
            remedy="an age such as 12h, 7d or 2w, or a date such as 2026-11-01 or 2026-11-01T19:00",
        ) from error
