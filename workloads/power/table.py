"""The rows as Markdown. What was not measured says so."""

from __future__ import annotations

from collections.abc import Sequence

from .measuring import Row
from .parameters import Parameters

NOT_MEASURED = "not measured"
COLUMNS = (
    "precision", "batch", "output tok/s", "mean W", "output tok/J", "J/output token",
    "$ per 1M output tokens",
)  # fmt: skip


def markdown_document(parameters: Parameters, size: int, device: str, rows: Sequence[Row]) -> str:
    """What was measured on which device, the table, and why cells are empty; ``size`` is the
    decoder's number of parameters.
    """
    name = parameters.config or parameters.shape
    said = (
        f"Decoder {name} ({size / 1e9:.3g} G parameters, random weights) on one "
        f"{device}, {parameters.prompt_tokens} tokens in and {parameters.new_tokens} out for each "
        f"sequence, at least {parameters.seconds:g} s of load a row. Prefill is part of the time. "
        "Power and energy are those of the GPU's board by NVML's energy counter, not of the wall."
    )
    table = [COLUMNS, ("---",) * len(COLUMNS), *(_cells(row, parameters) for row in rows)]
    lines = [f"| {' | '.join(cells)} |" for cells in table]
    return "\n".join(["# Power efficiency baselines", "", said, "", *lines, "", *_notes(rows)])


def _cells(row: Row, parameters: Parameters) -> tuple[str, ...]:
    rate, per_joule = row.output_tokens_per_s, row.tokens_per_joule
    price = parameters.gpu_hour_price
    cost = price / 3600 / rate * 1e6 if rate and price else None
    return (
        row.precision,
        str(row.batch),
        _number(rate),
        _number(row.watts),
        _number(per_joule),
        _number(1 / per_joule if per_joule else None),
        "no price given" if not price else _number(cost),
    )


def _number(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.4g}"


def _notes(rows: Sequence[Row]) -> list[str]:
    """Each reason once."""
    reasons = dict.fromkeys(
        f"- {row.precision}, batch {row.batch}: {row.failure or row.why_not}"
        for row in rows
        if row.failure or row.why_not
    )
    return [*reasons, ""]
