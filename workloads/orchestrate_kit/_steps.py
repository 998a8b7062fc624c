"""How far a job is, and the marks between its steps."""

from __future__ import annotations

from ._profile import wanted_profile
from ._reports import finite_or_none, write_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    Number = Union[int, float]

_profile = wanted_profile()


def progress(done: Number, total: Number, unit: str = "step", **fields: Union[Number, str]) -> None:
    """How far this rank is; ``fields`` are shown beside it (loss, rate). What is not finite is left
    out, with a warning.
    """
    numbers = {k: v if isinstance(v, str) else finite_or_none(k, v) for k, v in fields.items()}
    shown = {key: value for key, value in numbers.items() if value is not None}
    record = {
        "done": finite_or_none("done", done),
        "total": finite_or_none("total", total),
        "unit": unit,
    }
    if None not in record.values():
        write_record({"type": "progress", **record, "fields": shown})
    if _profile is not None:
        _profile.mark(in_window=False)


def mark_step() -> None:
    """Between two steps, on every rank: a profile that the run asked for begins and ends here, so
    that it holds whole steps. Measured windows are closed while it is taken.
    """
    if _profile is not None:
        _profile.mark(in_window=True)


def profiling() -> bool:
    """Whether this step is being profiled: it is slower for that, and belongs into no figure."""
    return _profile is not None and _profile.tell()
