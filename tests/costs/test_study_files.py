"""What `model run` writes: the same numbers everywhere, figures that open, a table that parses."""

from __future__ import annotations

import csv
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import pypdfium2
import pytest
from pylatexenc.latexwalker import LatexEnvironmentNode, LatexWalker

from orchestrator.adapters.extras import install_command
from orchestrator.cli.main import main
from tests.time_limits import assert_within

SYSTEMS = ("2xA100", "4xH100", "8xA100", "10xA6000")
FIGURES = ("throughput", "communication", "cost", "cross-system")
DARK = 200  # of 255: ink


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder to work in, and an empty home."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    return folder


def result_of(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The last line of stdout."""
    assert main(["model", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_figures_that_cannot_be_drawn_are_no_reason_to_compute_first(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["model", "run", "moe-scaling", "--out", "r"]) == 2
    said = capsys.readouterr().err
    assert "figures need matplotlib" in said
    assert install_command("report") in said
    assert not (project / "r").exists()
    assert main(["model", "run", "moe-scaling", "--out", "r", "--no-figures"]) == 0


def test_every_table_has_the_same_numbers(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CSV files, result.json and the result object agree to the last digit."""
    found = result_of(capsys, "run", "moe-scaling", "--no-figures", "--out", "r")
    rows = rows_of(project / "r" / "cross-system.csv")
    assert len(rows) == len(found["rows"]) == 24
    for read, row in zip(rows, found["rows"], strict=True):
        assert read.keys() == row.keys()
        for name, value in row.items():
            assert (float(read[name]) if isinstance(value, float) else read[name]) == (
                value if isinstance(value, float) else str(value)
            )
    assert json.loads((project / "r" / "result.json").read_text())["rows"] == found["rows"]
    for system in SYSTEMS:
        own = rows_of(project / "r" / f"{system}.csv")
        assert own == [row for row in rows if row["system"] == system]


def test_a_summary_for_each_system_and_a_log_of_all_inputs(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = result_of(capsys, "run", "moe-scaling", "--no-figures", "--out", "r")
    for system in SYSTEMS:
        text = (project / "r" / f"SUMMARY-{system}.md").read_text()
        assert "Predicted, not measured" in text
        assert text.count("\n| hybrid ") == 2
    a6000 = (project / "r" / "SUMMARY-10xA6000.md").read_text()
    assert "no-switch" in a6000
    assert "at most 960 tok/s" in a6000
    log = (project / "r" / "study.log").read_text()
    assert "mixture expert_bytes: 2e+09" in log
    assert "moe-scaling.yaml:" in log
    assert log.count("\nrow ") == 24
    assert all(Path(path).is_file() for path in found["files"])


@pytest.mark.slow
def test_figures_open_and_show_something(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each PDF is one page with ink on it, each PNG as large as print needs; all in under 60 s."""
    began = time.monotonic()
    result_of(capsys, "run", "moe-scaling", "--out", "r")
    assert_within("a study with its figures", time.monotonic() - began, 60)
    for name in FIGURES:
        document = pypdfium2.PdfDocument(project / "r" / f"{name}.pdf")
        assert len(document) == 1
        image = document[0].render(scale=1).to_pil().convert("L")
        dark = sum(image.histogram()[:DARK])
        assert 0.02 < dark / (image.width * image.height) < 0.6
        assert "prefetching" in document[0].get_textpage().get_text_range()
        document.close()
        header = (project / "r" / f"{name}.png").read_bytes()[:24]
        assert header.startswith(b"\x89PNG")
        assert int.from_bytes(header[16:20], "big") > 1000  # pixels wide


def test_the_latex_table_parses(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One tabular of 8 columns, and nothing that LaTeX would stumble over."""
    result_of(capsys, "run", "moe-scaling", "--no-figures", "--out", "r")
    text = (project / "r" / "table.tex").read_text()
    nodes, _, _ = LatexWalker(text, tolerant_parsing=False).get_latex_nodes()
    (table,) = (node for node in nodes if isinstance(node, LatexEnvironmentNode))
    assert table.environmentname == "tabular"
    body = [
        line for line in text.splitlines() if line.endswith(r" \\") and "multicolumn" not in line
    ]
    assert len(body) == 25
    assert {line.count(" & ") for line in body} == {7}
    assert not [line for line in body if "%" in line.replace(r"\%", "")]


def test_a_study_of_ones_own(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`new` writes a copy once, `list` and `show` find it, `run` uses its inputs."""
    assert main(["model", "new", "mine"]) == 0
    path = project / "studies" / "mine.yaml"
    path.write_text(path.read_text().replace("value: 250, unit: tok/s", "value: 500, unit: tok/s"))
    assert main(["model", "new", "mine"]) == 2
    capsys.readouterr()
    assert main(["model", "list", "--json"]) == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["name"], row["origin"]) for row in listed] == [
        ("mine", "project"), ("moe-scaling", "bundled"),
    ]  # fmt: skip
    assert main(["model", "show", "mine"]) == 0
    assert "prefetching, tokens_per_s 500.0" in capsys.readouterr().out
    found = result_of(capsys, "run", "mine", "--no-figures")
    data = next(r for r in found["rows"] if r["strategy"] == "data" and r["gpus"] == 8)
    assert found["rows"].index(data) >= 0
    assert (project / "mine-results" / "cross-system.csv").is_file()


@pytest.mark.parametrize(
    "old, new, place, what",
    [
        ("gpus: 8, ", "gpuz: 8, ", ":34:", "gpus"),
        ("gpu: a6000", "gpu: a600", ":35:", "a6000"),
        ("groups: [4, 2]", "groups: [4, 3]", ":34:", "not 8 GPUs"),
        ("active: 8 #", "active: 800 #", ":9:", "800 active experts of 128"),
        ("unit: tok/s, source: owner", "unit: tok, source: owner", ":23:", "tok/s"),
        ("low: 400, high: 600", "low: 700, high: 600", ":41:", "700 is more than 600"),
        ("system: 4xH100, strategy: hybrid, runtime: baseline",
         "system: 4xH10, strategy: hybrid, runtime: baseline", ":50:", "4xH100"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_file_and_line(
    *, old: str, new: str, place: str, what: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, the nearest valid key or name, and nothing written."""
    assert main(["model", "new", "mine"]) == 0
    path = project / "studies" / "mine.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    capsys.readouterr()
    assert main(["model", "run", "mine"]) == 2
    told = capsys.readouterr().err
    assert f"studies/mine.yaml{place}" in told
    assert what in told
    assert not (project / "mine-results").exists()


def test_an_unknown_study_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "run", "moe-scalling"]) == 2
    assert "did you mean 'moe-scaling'" in capsys.readouterr().err


def test_debug_shows_every_step(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr; the log file has it anyway, and no handler stays behind."""
    before = list(logging.getLogger("orchestrate.model").handlers)
    assert main(["model", "run", "moe-scaling", "--no-figures", "--out", "r", "--debug"]) == 0
    assert "wrote r/cross-system.csv" in capsys.readouterr().err
    assert main(["model", "run", "moe-scaling", "--no-figures", "--out", "r"]) == 0
    assert "wrote r/cross-system.csv" not in capsys.readouterr().err
    assert "DEBUG wrote r/cross-system.csv" in (project / "r" / "run.log").read_text()
    assert logging.getLogger("orchestrate.model").handlers == before
