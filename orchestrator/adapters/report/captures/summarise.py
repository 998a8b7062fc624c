"""After a run: each capture's summary beside the run's other files, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from orchestrator.adapters.report.captures.gpu_sections import show_clocks, show_memory, show_power
from orchestrator.adapters.report.captures.load_captures import read_node
from orchestrator.adapters.report.captures.nvlink_sections import show_nvlink
from orchestrator.adapters.report.captures.profile_sections import show_profile
from orchestrator.adapters.report.captures.shown import Shown, text_section
from orchestrator.adapters.report.markdown_sections import section_lines_of
from orchestrator.adapters.report.section_files import FILE
from orchestrator.adapters.store.atomic_files import make_private_dir, write_atomic
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.core.captures.outcome import CaptureResult, CaptureState, judge_capture
from orchestrator.core.captures.recorded import NOT_HOME, NodeRecord
from orchestrator.core.model.captures import PROFILED_NODES, Capture, CaptureKind
from orchestrator.parsing.replies import report_sections as given

Show = Callable[[Sequence[NodeRecord]], Shown]
SHOWS: Mapping[CaptureKind, Show] = {
    CaptureKind.POWER: show_power,
    CaptureKind.CLOCKS: show_clocks,
    CaptureKind.MEMORY: show_memory,
    CaptureKind.NVLINK: show_nvlink,
    CaptureKind.PROFILE: show_profile,
}
SUMMARY = "SUMMARY.md"


def summarise_captures(
    folder: RunFolder, captures: Sequence[Capture], nodes: Mapping[str, bool]
) -> tuple[CaptureResult, ...]:
    """Write ``captures/KIND/SUMMARY.md`` of each capture and their sections of the report.

    ``nodes``: those that had ranks, in the order of the plan, and whether their outputs came home.
    Raises ``OSError`` where nothing can be written.
    """
    records = [
        read_node(node, folder.node_artifacts(node), captures)
        if came
        else NodeRecord(node=node, index=None, problem=NOT_HOME)
        for node, came in nodes.items()
    ]
    results: list[CaptureResult] = []
    sections: list[given.Section] = []
    for capture in captures:
        asked = records[:PROFILED_NODES] if capture.kind is CaptureKind.PROFILE else records
        result, shown = _summarise(capture.kind, asked)
        path = make_private_dir(folder.captures / capture.kind.value) / SUMMARY
        text = "\n\n".join([f"# Capture: {capture.text}", *section_lines_of(shown)]) + "\n"
        write_atomic(path, text.encode("utf-8", "replace"))
        results.append(result)
        sections += shown
    document = given.ReportSections(schema_version=1, sections=sections[: given.MAX_SECTIONS])
    write_atomic(folder.captures / FILE, document.model_dump_json().encode())
    return tuple(results)


def _summarise(
    kind: CaptureKind, records: Sequence[NodeRecord]
) -> tuple[CaptureResult, list[given.Section]]:
    missing = {record.node: record.missing(kind) for record in records}
    trouble = {record.node: record.trouble(kind) for record in records if not missing[record.node]}
    state = judge_capture(missing, trouble)
    reasons = [f"{node}: {why}" for node, why in {**missing, **trouble}.items() if why]
    usable = [record for record in records if not missing[record.node]]
    shown = SHOWS[kind](usable) if usable else Shown((), "not captured", {})
    result = CaptureResult(
        kind=kind.value,
        state=state,
        reasons=tuple(reasons),
        figures=shown.figures,
        summary=f"captures/{kind.value}/{SUMMARY}",
    )
    return result, [
        _head(kind, state, shown.line, reasons),
        *shown.sections,
        _files(kind, usable),
    ]


def _head(
    kind: CaptureKind, state: CaptureState, line: str, reasons: Sequence[str]
) -> given.Section:
    why = f" ({'; '.join(reasons)})" if reasons else ""
    tone: given.Tone = "" if state is CaptureState.CAPTURED else "odd"
    return text_section(f"Capture {kind}", line + why, tone, terminal=True)


def _files(kind: CaptureKind, usable: Sequence[NodeRecord]) -> given.Section:
    files = "profile/" if kind is CaptureKind.PROFILE else f"{kind}.csv"
    names = ", ".join(f"artifacts/{record.node}/captures/{files}" for record in usable)
    busy = [r.index.busy for r in usable if r.index is not None and r.index.busy is not None]
    told = bool(busy) and kind is not CaptureKind.PROFILE
    cost = f" The sampler asked the driver for {max(busy):.2%} of the time." if told else ""
    return text_section("Data", f"{names or 'none'}.{cost}", "soft")
