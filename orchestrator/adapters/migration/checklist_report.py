"""A checklist as the last JSON line, as Markdown, as one HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.adapters.report.html_report import render_template
from orchestrator.adapters.report.markdown_text import escape_markdown, markdown_table
from orchestrator.core.base.errors import ExitCode
from orchestrator.core.base.figures import format_moment
from orchestrator.core.migration.checklist import BoxOutcome, Checklist
from orchestrator.core.migration.evidence import Bundle

SCHEMA_VERSION = 1
HEADINGS = ("", "box", "value", "target", "evidence", "verdict")
FLAG_HEADINGS = ("figure", "expected", "what physics says", "expected by")
SIDE_HEADINGS = ("side", "bundle", "cluster", "made", "GPUs", "driver", "CUDA")
DOES_NOT_APPLY = "does not apply"


def checklist_rows(checklist: Checklist) -> Iterator[tuple[str, ...]]:
    """One row for each line of each box, for ``HEADINGS``."""
    return object_rows(checklist_object(checklist))


def object_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The same of a result object. Raises ``KeyError``, ``TypeError``."""
    for box in found["boxes"]:
        mark = "[-]" if box["verdict"] is None else "[ ]" if box["open"] else "[x]"
        if box["verdict"] is None:
            yield mark, box["title"], "", box["why"], "", DOES_NOT_APPLY
        for number, line in enumerate(box["lines"]):
            first = (mark, box["title"]) if not number else ("", "")
            yield *first, *(line[key] for key in LINE_KEYS)


def flag_rows(checklist: Checklist) -> Iterator[tuple[str, ...]]:
    """One row a flag, for ``FLAG_HEADINGS``."""
    for flag in checklist.flags:
        wanted = flag.expectation
        yield wanted.metric, str(wanted.value), flag.what, wanted.source


def side_rows(checklist: Checklist) -> Iterator[tuple[str, ...]]:
    """What was compared with what, for ``SIDE_HEADINGS``."""
    for side, bundle in (("old", checklist.old), ("new", checklist.new)):
        yield side, bundle.name, bundle.cluster, format_moment(bundle.made), *_equipment(bundle)


def verdict_text(checklist: Checklist) -> str:
    """The last line: ``NO-GO: 2 boxes open: speed, traces``."""
    return object_verdict(checklist_object(checklist))


def object_verdict(found: Mapping[str, Any]) -> str:
    """The same of a result object. Raises ``KeyError``, ``TypeError``."""
    if found["status"] == "go":
        applying = sum(box["verdict"] is not None for box in found["boxes"])
        return f"GO: {applying} boxes closed"
    names = found["open"]
    if not names:
        return "NO-GO: no box applies to this hardware"
    boxes = "1 box" if len(names) == 1 else f"{len(names)} boxes"
    return f"NO-GO: {boxes} open: {', '.join(names)}"


def exit_code(checklist: Checklist) -> ExitCode:
    """GO is success; any open box is what a regression is."""
    return ExitCode.DONE if checklist.go else ExitCode.REGRESSION


def checklist_object(checklist: Checklist) -> dict[str, Any]:
    """The result object (docs/migration.md)."""
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "go" if checklist.go else "no-go",
        "exit_code": int(exit_code(checklist)),
        "playbook": checklist.playbook.name,
        "old": _side_object(checklist.old),
        "new": _side_object(checklist.new),
        "open": [outcome.box.id for outcome in checklist.open_boxes],
        "boxes": [_box_object(outcome) for outcome in checklist.boxes],
        "flags": [dict(zip(FLAG_KEYS, row, strict=True)) for row in flag_rows(checklist)],
    }


FLAG_KEYS = ("figure", "expected", "what", "source")
LINE_KEYS = ("value", "target", "evidence", "verdict")


def checklist_markdown(checklist: Checklist) -> str:
    """For repositories and mails; every foreign text is escaped."""
    title = f"# Migration by playbook {escape_markdown(checklist.playbook.name)}"
    parts = [
        title,
        f"**{escape_markdown(verdict_text(checklist))}**",
        *markdown_table("Sides", SIDE_HEADINGS, side_rows(checklist)),
        *markdown_table("Checklist", HEADINGS, checklist_rows(checklist)),
        *markdown_table("Expectations against physics", FLAG_HEADINGS, flag_rows(checklist)),
    ]
    return "\n\n".join(parts) + "\n"


def checklist_html(checklist: Checklist) -> str:
    """One file that needs no network."""
    return render_template(
        "migration.html.jinja",
        checklist=checklist,
        verdict_text=verdict_text(checklist),
        tables=[
            ("Sides", SIDE_HEADINGS, list(side_rows(checklist))),
            ("Checklist", HEADINGS, list(checklist_rows(checklist))),
            ("Expectations against physics", FLAG_HEADINGS, list(flag_rows(checklist))),
        ],
    )


def _equipment(bundle: Bundle) -> Sequence[str]:
    gpus = bundle.gpus
    kinds = dict.fromkeys(gpus or ())
    found = " + ".join(f"{(gpus or ()).count(kind)} x {kind}" for kind in kinds)
    drivers = dict.fromkeys(machine.driver for machine in bundle.machines if machine.driver)
    cudas = dict.fromkeys(machine.cuda for machine in bundle.machines if machine.cuda)
    return (
        "unknown" if gpus is None else found or "none",
        ", ".join(drivers),
        ", ".join(cudas),
    )


def _side_object(bundle: Bundle) -> dict[str, Any]:
    gpus = bundle.gpus
    return {
        "bundle": bundle.name,
        "cluster": bundle.cluster,
        "made": bundle.made,
        "gpus": None if gpus is None else list(gpus),
    }


def _box_object(outcome: BoxOutcome) -> dict[str, Any]:
    return {
        "id": outcome.box.id,
        "title": outcome.box.title,
        "open": outcome.open,
        "verdict": outcome.verdict.value if outcome.verdict else None,
        "why": outcome.why,
        "lines": [
            {
                "value": line.value,
                "target": line.target,
                "evidence": line.evidence,
                "verdict": line.verdict.value,
            }
            for line in outcome.lines
        ],
    }
