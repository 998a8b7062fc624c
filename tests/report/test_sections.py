"""Sections that workloads add: validated, bounded, escaped, drawn inside their frames."""

from __future__ import annotations

import contextlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.adapters.report.document import load_report
from orchestrator.adapters.report.drawing import plots
from orchestrator.adapters.report.html_report import render_html
from orchestrator.adapters.report.markdown import render_markdown
from orchestrator.adapters.report.section_files import FILE, read_sections
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.core.base.errors import ExitCode, UsageError
from orchestrator.core.verdict.result import Result, Status
from orchestrator.parsing.replies.report_sections import (
    MAX_BYTES,
    BarsSection,
    HeatSection,
    LinesSection,
    SpreadSection,
    parse_sections,
)
from orchestrator.view.result.result_sections import section_lines

EVIL = "<script>alert('x')</script>\u202e|`**[a](javascript:b)\x1b[2J&"
RESULT = Result(
    run_id="r1",
    status=Status.SUCCEEDED,
    exit_code=ExitCode.DONE,
    cluster="c",
    workload="w",
    launcher="torchrun",
    world_size=2,
)


def document(text: str = "words") -> dict[str, Any]:
    """One section of every kind, with ``text`` wherever there may be text."""
    mark = {"label": text, "value": 2.0, "tone": "bad"}
    points = [[1024, 1.0], [2048, 2.5], [1048576, 3.0]]
    cell = {"text": text, "tone": "good"}
    column = {"name": text, "right": True}
    axis = {"label": text, "unit": "bytes", "log": True}
    dots = [{"label": text, "value": 99.0}, {"label": text, "value": 80, "tone": "bad"}]
    return {
        "schema_version": 1,
        "sections": [
            {"kind": "text", "title": text, "text": text, "tone": "bad", "terminal": True},
            {"kind": "tiles", "tiles": [{"label": text, "value": text, "text": text}]},
            {"kind": "table", "title": text, "columns": [column], "rows": [[cell]],
             "note": text, "terminal": True},
            {"kind": "lines", "title": text, "x": axis, "y": {"label": text, "from_zero": True},
             "series": [{"label": text, "points": points}], "marks": [mark], "note": text},
            {"kind": "heat", "title": text, "rows": [text, text], "columns": [text, text],
             "values": [[None, 373.0], [250.0, None]], "note": text},
            {"kind": "bars", "title": text, "note": text,
             "bars": [{"label": text, "value": 5, "target": 9, "text": text, "tone": "odd"}]},
            {"kind": "spread", "title": text, "groups": [{"label": text, "points": dots}],
             "marks": [mark], "note": text},
        ],
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = Layout(tmp_path).run("r1")
    folder.create()
    return folder


def put(folder: RunFolder, content: object, node: str = "a") -> None:
    folder.node_artifacts(node).mkdir(parents=True, exist_ok=True)
    (folder.node_artifacts(node) / FILE).write_text(json.dumps(content))


def test_every_kind_is_in_every_rendering(folder: RunFolder) -> None:
    """HTML draws four plots; Markdown has the same numbers; the terminal what is meant for it."""
    put(folder, document())
    report = load_report(folder, RESULT)
    page, text = render_html(report), render_markdown(report)
    assert page.count("<svg") == 4
    for words in ("1 KiB", "373", "250", "3"):
        assert words in page
    assert "| 373 |" in text.replace("|  |", "|")
    assert "| words | 80 | 89.5 | 99 | words |" in text
    lines = section_lines(read_sections(folder))
    assert lines == ["  words: words", "", "  words", "  words", "  words", ""]


class Tags(HTMLParser):
    """Names of elements; no handler may be among the attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]


def test_foreign_text_stays_text(folder: RunFolder) -> None:
    """No tag, no link, no control character, no table cell comes from a workload."""
    put(folder, document(EVIL))
    report = load_report(folder, RESULT)
    page, text = render_html(report), render_markdown(report)
    assert not {"script", "img", "iframe", "link"} & Tags(page).found
    for rendered in (page, text, "\n".join(section_lines(report.sections))):
        assert "\u202e" not in rendered
        assert "\x1b" not in rendered
    assert "<script" not in page + text
    assert "[a](" not in text.replace("\\[a\\](", "")
    table = next(part for part in text.split("\n\n") if part.startswith("| ") and "KiB" in part)
    assert {len(re.split(r"(?<!\\)\|", row)) for row in table.splitlines()} == {6}


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(schema_version=2),
        lambda d: d.update(more=1),
        lambda d: d["sections"].append({"kind": "movie"}),
        lambda d: d["sections"][0].update(tone="url(x)"),
        lambda d: d["sections"][0].update(text="x" * 5000),
        lambda d: d["sections"][2]["rows"].append([]),
        lambda d: d["sections"][3]["series"][0].update(points=[[0, 1]]),
        lambda d: d["sections"][3]["series"][0].update(points=[[1, float("nan")]]),
        lambda d: d["sections"][3]["series"][0].update(points=[["1", 1]]),
        lambda d: d["sections"][4].update(values=[[1, 2]]),
        lambda d: d["sections"][5]["bars"][0].update(value=-1),
        lambda d: d["sections"].extend([d["sections"][0]] * 64),
    ],
)
def test_what_breaks_a_rule_is_refused_and_the_report_says_so(
    change: Any, folder: RunFolder
) -> None:
    """The run's report is there all the same, with the reason in place of the sections."""
    content = document()
    change(content)
    put(folder, content)
    put(folder, document(), node="b")
    with pytest.raises(UsageError):
        parse_sections(json.dumps(content).encode(), where="x")
    first, second = read_sections(folder)
    assert first.content is None
    assert first.trouble
    assert second.content is not None
    page = render_html(load_report(folder, RESULT))
    assert page.count("<svg") == 4
    assert FILE in page
    assert any(FILE in line for line in section_lines((first,)))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(UsageError):
        parse_sections(data, where="x")


def test_only_regular_files_of_the_last_attempt_are_read(folder: RunFolder, tmp_path: Path) -> None:
    """No link is followed, no huge file is taken in, nothing of an earlier attempt is shown."""
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(document("secret")))
    folder.node_artifacts("linked").mkdir(parents=True)
    (folder.node_artifacts("linked") / FILE).symlink_to(secret)
    put(folder, document(), node="old.attempt-1")
    folder.node_artifacts("huge").mkdir()
    with (folder.node_artifacts("huge") / FILE).open("wb") as file:
        file.truncate(MAX_BYTES + 10)
    folder.node_artifacts("folder").joinpath(FILE).mkdir(parents=True)
    found = {part.node: part for part in read_sections(folder)}
    assert set(found) == {"linked", "huge", "folder"}
    assert all(part.content is None and part.trouble for part in found.values())
    assert "secret" not in render_html(load_report(folder, RESULT))


NUMBER = st.floats(allow_nan=False, allow_infinity=False)


def inside(x: float, y: float, height: float, width: float = plots.WIDTH) -> bool:
    return 0 <= x <= width and 0 <= y <= height


@given(st.lists(st.tuples(NUMBER, NUMBER), min_size=1, max_size=30), st.lists(NUMBER, max_size=4))
def test_curves_stay_in_their_frame(points: list[tuple[float, float]], marks: list[float]) -> None:
    section = LinesSection.model_validate(
        {"kind": "lines", "title": "", "x": {"label": ""}, "y": {"label": ""},
         "series": [{"label": "", "points": points}], "marks": [{"value": m} for m in marks]}
    )  # fmt: skip
    plot = plots.lines_plot(section)
    for point in plot.lines[0].points.split():
        x, y = map(float, point.split(","))
        assert inside(x, y, plot.height)
    assert all(0 <= mark.at <= plot.height for mark in plot.marks)


@given(st.lists(st.tuples(st.floats(5e-324, 1.7e308), NUMBER), min_size=1, max_size=20))
def test_logarithmic_axes_take_anything_above_zero(points: list[tuple[float, float]]) -> None:
    section = LinesSection.model_validate(
        {"kind": "lines", "title": "", "x": {"label": "", "unit": "bytes", "log": True},
         "y": {"label": ""}, "series": [{"label": "", "points": points}]}
    )  # fmt: skip
    plot = plots.lines_plot(section)
    assert len(plot.x_ticks) <= 8
    for tick in plot.x_ticks:
        assert inside(tick.at, 0, plot.height)


@given(st.lists(NUMBER, min_size=1, max_size=20), st.lists(NUMBER, max_size=3))
def test_dots_stay_in_their_frame(values: list[float], marks: list[float]) -> None:
    section = SpreadSection.model_validate(
        {"kind": "spread", "title": "", "marks": [{"value": mark} for mark in marks],
         "groups": [{"label": "", "points": [{"label": "", "value": v} for v in values]}]}
    )  # fmt: skip
    plot = plots.spread_plot(section)
    assert all(inside(spot.x, spot.y, plot.height) for row in plot.rows for spot in row.spots)


@given(st.lists(st.floats(0, 1e308), min_size=1, max_size=20))
def test_bars_stay_in_their_frame(values: list[float]) -> None:
    section = BarsSection.model_validate(
        {"kind": "bars", "title": "", "bars": [{"label": "", "value": v} for v in values]}
    )
    plot = plots.bars_plot(section)
    assert all(0 <= bar.width <= plots.WIDTH - plots.NAME_ROOM for bar in plot.bars)


@given(st.lists(st.one_of(st.none(), NUMBER), min_size=4, max_size=4))
@example([None, None, 1e308, 1.7e308])
def test_heat_shades_are_shares_and_the_slow_cell_is_framed(values: list[float | None]) -> None:
    def heat(cells: list[float | None]) -> plots.HeatPlot:
        return plots.heat_plot(
            HeatSection.model_validate(
                {"kind": "heat", "title": "", "rows": ["a", "b"], "columns": ["a", "b"],
                 "values": [cells[:2], cells[2:]]}
            )
        )  # fmt: skip

    assert all(0 <= cell.shade <= 1 for cell in heat(values).cells)
    slow = heat([373.0, 372.0, 300.0, 374.0]).cells
    assert [cell.pale for cell in slow] == [False, False, True, False]
