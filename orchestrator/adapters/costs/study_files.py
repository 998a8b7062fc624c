"""What a study writes: tables for programs, for people and for a paper, and a log of all inputs.

The same rows stand in ``result.json`` and in the CSV files, number for number.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from orchestrator.adapters.store.atomic_files import write_atomic
from orchestrator.core.costs.study.study_model import (
    BandCheck,
    Outcome,
    Sensitivity,
    Standing,
    Study,
    StudyRow,
    System,
)

LOG = logging.getLogger("orchestrate.model")
LATEX = {char: "\\" + char for char in "&%$#_{}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}
FOOTNOTE = "* the weights do not fit into the memory of these GPUs"
WORDS = {
    "tokens_per_s": "tok/s",
    "communication_share": "communication",
    "efficiency": "scaling efficiency",
    "usd_per_million": "USD per 1M tokens",
    "ratio": "last runtime by first",
}


def write_tables(outcome: Outcome, folder: Path) -> list[Path]:
    """Every file of a study but its figures, and which they are. Raises ``OSError``."""
    folder.mkdir(parents=True, exist_ok=True)
    written = list(_write_texts(outcome, folder))
    for path in written:
        LOG.debug("wrote %s", path)
    return written


def _write_texts(outcome: Outcome, folder: Path) -> Iterator[Path]:
    texts = {
        "cross-system.csv": csv_text(StudyRow, outcome.rows),
        "table.tex": latex_table(outcome),
    }
    for system in outcome.study.systems:
        own = [row for row in outcome.rows if row.system == system.name]
        texts[f"{system.name}.csv"] = csv_text(StudyRow, own)
        texts[f"SUMMARY-{system.name}.md"] = summary_text(outcome, system)
    texts["sensitivity.csv"] = csv_text(Sensitivity, outcome.sensitivities)
    texts["result.json"] = json.dumps(outcome_record(outcome), indent=1, allow_nan=False) + "\n"
    texts["study.log"] = "\n".join(log_lines(outcome)) + "\n"
    for name, text in texts.items():
        path = folder / name
        write_atomic(path, text.encode())
        yield path


def outcome_record(outcome: Outcome) -> dict[str, Any]:
    """Everything that was found, ready for JSON."""
    study = outcome.study
    return {
        "study": study.name,
        "title": study.title,
        "rows": [asdict(row) for row in outcome.rows],
        "bands": [
            {**asdict(check.band), "value": check.value, "standing": check.standing.value,
             "reason": check.reason}
            for check in outcome.checks
        ],
        "violations": [asdict(each) for each in outcome.violations],
        "sensitivity": [asdict(each) for each in outcome.sensitivities],
    }  # fmt: skip


def csv_text(kind: type[StudyRow | Sensitivity], records: Iterable[StudyRow | Sensitivity]) -> str:
    """A line a record of this kind; numbers as Python writes them, so that none is rounded."""
    file = io.StringIO()
    columns = [field.name for field in fields(kind)]
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, records))
    return file.getvalue()


def latex_table(outcome: Outcome) -> str:
    """A ``tabular`` of all rows, without packages."""
    head = ("System", "Strategy", "Runtime", "tok/s", "Comm.", "Efficiency", "USD / 1M", "Speed-up")
    lines = [r"\begin{tabular}{lllrrrrr}", r"\hline", _latex_row(head), r"\hline"]
    last = ""
    for row in outcome.rows:
        if last and row.system != last:
            lines.append(r"\hline")
        last = row.system
        lines.append(_latex_row((*row_cells(row), f"{row.speedup:.2f}")))
    lines += [r"\hline", rf"\multicolumn{{8}}{{l}}{{{FOOTNOTE}}} \\", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    escaped = ("".join(LATEX.get(char, char) for char in cell) for cell in cells)
    return " & ".join(escaped) + r" \\"


def percent(part: float, digits: int = 0) -> str:
    """``31.7 %`` of 0.317."""
    return f"{100 * part:.{digits}f} %"


def row_cells(row: StudyRow) -> tuple[str, ...]:
    """What every table for people begins with, from the system to USD per million tokens."""
    return (
        row.system, layout_text(row), row.runtime, f"{row.tokens_per_s:,.0f}",
        percent(row.communication_share, 1), percent(row.efficiency),
        f"{row.usd_per_million:.2f}",
    )  # fmt: skip


def layout_text(row: StudyRow) -> str:
    """``hybrid 4x2``: GPUs that share experts, times copies; a star where these do not fit."""
    return f"{row.strategy} {row.group}x{row.copies}{'' if row.fits else '*'}"


def summary_text(outcome: Outcome, system: System) -> str:
    """What one system does, in Markdown."""
    return "\n".join(_summary(outcome, system)) + "\n"


def _summary(outcome: Outcome, system: System) -> Iterator[str]:
    link = system.fabric.inside
    yield f"# {system.name}: {system.gpus} x {system.device.name}"
    yield ""
    yield (
        f"*Predicted, not measured.* {outcome.study.title}. GPUs are joined by {link.name}, "
        f"{link.bytes_s / 1e9:.0f} GB/s each; {system.price_per_gpu_hour:g} USD for a GPU's hour."
    )
    yield ""
    yield "| strategy | runtime | tok/s | communication | efficiency | USD / 1M | saved a year |"
    yield "|---|---|---|---|---|---|---|"
    for row in (row for row in outcome.rows if row.system == system.name):
        _, *cells = row_cells(row)
        yield f"| {' | '.join(cells)} | {row.yearly_savings:,.0f} USD |"
    yield from ("", rf"\{FOOTNOTE}")
    yield from _listed("What the hardware cannot do", _violation_lines(outcome, system.name))
    yield from _listed("Expected, and what came", _check_lines(outcome, system.name))
    moved = (each for each in outcome.sensitivities if each.system == system.name)
    yield from _listed("What moves the result most", map(sensitivity_text, moved))


def _listed(title: str, lines: Iterable[str]) -> Iterator[str]:
    body = list(lines)
    if body:
        yield from ("", f"## {title}", "")
        yield from (f"- {line}" for line in body)


def _violation_lines(outcome: Outcome, system: str) -> Iterator[str]:
    return (f"{v.id}: {v.text}" for v in outcome.violations if v.system == system)


def _check_lines(outcome: Outcome, system: str) -> Iterator[str]:
    return (check_text(check) for check in outcome.checks if check.band.system == system)


def check_text(check: BandCheck) -> str:
    """``hybrid prefetching, tok/s: 1,569 is below 2,000 to 3,000: reason``."""
    band = check.band
    who = " ".join(filter(None, (band.strategy, band.runtime)))
    value, low, high = (_figure(band.figure, each) for each in (check.value, band.low, band.high))
    why = f": {check.reason}" if check.reason else ""
    verb = "is inside" if check.standing is Standing.INSIDE else f"is {check.standing}"
    return f"{who}, {WORDS[band.figure]}: {value} {verb} {low} to {high}{why}"


def _figure(name: str, value: float) -> str:
    if name in {"communication_share", "efficiency"}:
        return percent(value, 1)
    return f"{value:,.0f}" if name == "tokens_per_s" else f"{value:.2f}"


def sensitivity_text(each: Sensitivity) -> str:
    """``layers +-20 %: tok/s +2.5 % / -2.4 %``."""
    change = f"-{percent(each.change)} / +{percent(each.change)}"
    return f"{each.input} {change}: tok/s {100 * each.lower:+.1f} % / {100 * each.higher:+.1f} %"


def input_lines(study: Study) -> Iterator[str]:
    """All inputs, as they are used."""
    yield f"study {study.name}: {study.title}"
    yield f"source: {study.source}"
    for name, value in asdict(study.mixture).items():
        yield f"mixture {name}: {value:g}"
    for runtime in study.runtimes:
        yield f"runtime {_named(asdict(runtime))}"
    for system in study.systems:
        link = system.fabric.inside
        yield (
            f"system {system.name}: {system.gpus} x {system.device.name}, groups of "
            f"{system.groups[0]} x {system.groups[1]}, {system.price_per_gpu_hour:g} USD/h each"
        )
        yield (
            f"  {system.device.memory_bytes / 1e9:g} GB at {system.device.memory_bytes_s / 1e12:g} "
            f"TB/s; {link.name} {link.bytes_s / 1e9:g} GB/s, {link.start_s * 1e6:g} us to start, "
            f"{link.hop_s * 1e6:g} us a step"
        )
    yield f"tokens a month: {study.tokens_per_month:g}"


def _named(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def log_lines(outcome: Outcome) -> Iterator[str]:
    """All inputs as they were used, then everything that came of them."""
    yield from input_lines(outcome.study)
    for row in outcome.rows:
        yield f"row {_named(asdict(row))}"
    yield from (f"band {check.band.place}: {check_text(check)}" for check in outcome.checks)
    yield from (f"violation {v.system} {v.id}: {v.text}" for v in outcome.violations)
    for each in outcome.sensitivities:
        yield f"sensitivity {each.system}: {sensitivity_text(each)}"
