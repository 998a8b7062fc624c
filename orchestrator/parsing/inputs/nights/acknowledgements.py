"""The file of accepted changes -> ``Acknowledgement``.

- series: finetune/tokens_per_s     # or finetune/* for all that begin so
  expires: 2026-12-24               # from that day on it alarms again
  reason: the new tokenizer is slower, and wanted
"""

from __future__ import annotations

from datetime import date
from typing import Any

from pydantic import Field, ValidationError

from orchestrator.core.detection.night_series import Acknowledgement
from orchestrator.parsing.inputs.validation import Strict
from orchestrator.parsing.inputs.yaml_source import Document, InputProblem, parse_yaml, refuse_input

FORM = "series: NAME, expires: 2026-12-24, reason: WHY"
MAX_ENTRIES = 1000


class AcknowledgementEntry(Strict):
    """One accepted change."""

    series: str = Field(min_length=1, max_length=300)
    expires: str
    reason: str = Field(min_length=1, max_length=1000)


def parse_acknowledgements(data: str | bytes, source: str) -> tuple[Acknowledgement, ...]:
    """Every entry of the file; an empty one has none.

    Raises :class:`UsageError` listing every problem with file:line:column.
    """
    document = parse_yaml(data, source)
    entries = document.root.plain()
    if entries is None:
        return ()
    if not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
        what = f"expected a list of at most {MAX_ENTRIES} acknowledgements"
        refuse_input([InputProblem(document.root.place, what, f"begin each with - {FORM}")], source)
    problems = list(document.problems)
    found = [_acknowledgement(document, n, entry, problems) for n, entry in enumerate(entries)]
    if problems:
        refuse_input(problems, source)
    return tuple(each for each in found if each is not None)


def _acknowledgement(
    document: Document, number: int, entry: Any, problems: list[InputProblem]
) -> Acknowledgement | None:
    try:
        read = AcknowledgementEntry.model_validate(entry)
    except ValidationError as error:
        for details in error.errors():
            path = (number, *details["loc"])
            name = ".".join(map(str, details["loc"]))
            what = f"{name}: {details['msg']}" if name else details["msg"]
            problems.append(InputProblem(document.place(path, key=True), what, f"write {FORM}"))
        return None
    if not _is_date(read.expires):
        place = document.place((number, "expires"))
        problems.append(InputProblem(place, "not a date of the form 2026-12-24", f"write {FORM}"))
        return None
    return Acknowledgement(series=read.series, expires=read.expires, reason=read.reason)


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
