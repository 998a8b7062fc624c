"""``history``, ``compare`` and ``baseline`` as people and scripts call them."""

from __future__ import annotations

import csv
import json
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.store.layout import Layout
from orchestrator.cli.main import main
from orchestrator.core.verdict.result import Status
from tests.history.made_runs import KEY, make_entry

Output = pytest.CaptureFixture[str]


def fill(home: Path, *, runs: int = 20, noise: float = 0.01) -> None:
    """Runs ``r00``, ``r01``, ... at 100 tok/s with normal noise."""
    store, source = open_history(Layout(home)), random.Random(5)
    for number in range(runs):
        speed = 100.0 * (1 + source.gauss(0, noise))
        store.record_run(make_entry(f"r{number:02}", float(number), speed=speed, loss=0.5))


def add(home: Path, run_id: str, finished: float = 100.0, **values: Any) -> None:
    open_history(Layout(home)).record_run(make_entry(run_id, finished, **values))


def lines(output: Output) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.readouterr().out.splitlines()]


def result_of(output: Output) -> dict[str, Any]:
    *_, last = lines(output)
    assert last["type"] == "result"
    return last


def test_a_planted_slower_run_fails_the_gate(home: Path, capsys: Output) -> None:
    """5 % at a noise of 1 %: exit 5, with the ratio and its interval."""
    fill(home)
    add(home, "slow", speed=95.0, loss=0.5)
    assert main(["compare", "last:10", "slow", "--gate", "--json"]) == 5
    result = result_of(capsys)
    speed = next(item for item in result["figures"] if item["name"] == "speed")
    assert (result["verdict"], speed["verdict"]) == ("fail", "fail")
    assert speed["interval"][0] < speed["ratio"] < speed["interval"][1] < 1
    assert {"name", "a", "b", "ratio", "interval", "verdict"} <= speed.keys()
    assert main(["compare", "last:10", "slow"]) == 0


def test_two_runs_alone_are_judged_by_the_tolerance(home: Path, capsys: Output) -> None:
    """Nothing is known of the noise: what is beyond the tolerance fails."""
    add(home, "a", 1.0, speed=100.0)
    add(home, "b", 2.0, speed=95.0)
    add(home, "c", 3.0, speed=98.0)
    assert main(["compare", "a", "b", "--gate", "--json"]) == 5
    assert result_of(capsys)["figures"][0]["interval"] is None
    assert main(["compare", "a", "c", "--gate"]) == 0


def test_a_run_within_noise_passes(home: Path, capsys: Output) -> None:
    fill(home)
    add(home, "same", speed=100.2, loss=0.5)
    assert main(["compare", "last:10", "same", "--gate", "--json"]) == 0
    assert result_of(capsys)["verdict"] == "pass"


def test_another_gpu_is_invalid(home: Path, capsys: Output) -> None:
    """With the part of the key that differs; --across allows it."""
    add(home, "a", 1.0, speed=100.0)
    add(home, "b", 2.0, speed=100.0, key=replace(KEY, gpus="8 x NVIDIA H100"))
    assert main(["compare", "a", "b", "--gate", "--json"]) == 5
    result = result_of(capsys)
    assert result["verdict"] == "invalid"
    assert result["differences"] == [
        {"part": "gpus", "a": "8 x NVIDIA H200", "b": "8 x NVIDIA H100"}
    ]
    assert {item["verdict"] for item in result["figures"]} == {"invalid"}
    assert main(["compare", "a", "b"]) == 0
    told = capsys.readouterr().out
    assert "--across gpus" in told
    assert told.count("not alike: ") == 1
    assert told.index("not alike: ") < told.index("verdict")
    assert main(["compare", "a", "b", "--gate", "--across", "gpus"]) == 0
    assert main(["compare", "a", "b", "--across", "gpu"]) == 2
    assert "did you mean 'gpus'?" in capsys.readouterr().err


def test_missing_and_failed_never_pass(home: Path, capsys: Output) -> None:
    add(home, "a", 1.0, speed=100.0, step=1.0)
    add(home, "b", 2.0, speed=100.0, step=None)
    add(home, "c", 3.0, speed=100.0)
    add(home, "d", 4.0, speed=100.0, step=1.0, status=Status.FAILED)
    for run, verdict in (("b", "not-run"), ("c", "not-run"), ("d", "invalid")):
        assert main(["compare", "a", run, "--gate", "--json"]) == 5
        assert result_of(capsys)["verdict"] == verdict


GATES = """
gates:
  - metric: speed
    within: 3 %
    reason: agreed with the team
  - metric: power
    at_most: 2.4 kW
    reason: the rack's limit
  - metric: fp8
    within: 12 %
    of: fp16
    reason: what the kernel promises
"""


def test_gates_of_a_file(home: Path, tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "gates.yaml"
    file.write_text(GATES)
    figures = {"power": 2300.0, "fp8": 90.0, "fp16": 100.0}
    add(home, "a", 1.0, speed=100.0, **figures)
    add(home, "b", 2.0, speed=98.0, **figures)
    add(home, "c", 3.0, speed=96.0, **{**figures, "fp8": 80.0})
    assert main(["compare", "a", "b", "--gates", str(file), "--gate", "--json"]) == 0
    assert verdicts(result_of(capsys)) == {"speed": "pass", "power": "pass", "fp8": "pass"}
    assert main(["compare", "a", "c", "--gates", str(file), "--gate", "--json"]) == 5
    assert verdicts(result_of(capsys)) == {"speed": "fail", "power": "pass", "fp8": "fail"}
    file.write_text(GATES.replace("kW", "s").replace("fp16", "fp61").replace("speed", "sped"))
    assert main(["compare", "a", "b", "--gates", str(file), "--gate", "--json"]) == 5
    result = result_of(capsys)
    assert verdicts(result) == {"sped": "not-run", "power": "invalid", "fp8": "not-run"}
    assert "did you mean 'speed'?" in result["gates"][0]["detail"]


def verdicts(result: dict[str, Any]) -> dict[str, str]:
    return {gate["metric"]: gate["verdict"] for gate in result["gates"]}


@pytest.mark.parametrize(
    "text,place_and_word",
    [
        ("gates: []", ("1", "at least 1")),
        ("gates:\n  - metric: x\n    withn: 3 %\n    reason: y", ("3:5", "did you mean 'within'?")),
        ("gates:\n  - metric: x\n    within: 3\n    reason: y", ("3", "text")),
        ("gates:\n  - metric: x\n    within: 3 W\n    reason: y", ("3", "percentage")),
        ("gates:\n  - metric: x\n    at_most: much\n    reason: y", ("3", "2.4 kW")),
        ("gates:\n  - metric: x\n    at_most: 1_0e1\n    reason: y", ("3", "2.4 kW")),
        ("gates:\n  - metric: x\n    at_most: 12:30 s\n    reason: y", ("3", "2.4 kW")),
        ("gates:\n  - metric: x\n    at_most: '1,000 W'\n    reason: y", ("3", "2.4 kW")),
        ("gates:\n  - metric: x\n    reason: y", ("2", "within, or at_least")),
        ("gates:\n  - metric: x\n    within: 3 %", ("2", "'reason' is missing")),
        ("gate:\n  - x", ("1", "none of the keys")),
    ],
)
def test_bad_gate_files(
    home: Path, tmp_path: Path, capsys: Output, text: str, place_and_word: tuple[str, str]
) -> None:
    """Exit 2 with file, line and what would be right."""
    where, what = place_and_word
    file = tmp_path / "gates.yaml"
    file.write_text(text)
    assert main(["compare", "a", "b", "--gates", str(file)]) == 2
    shown = capsys.readouterr().err
    assert f"gates.yaml:{where}" in shown
    assert what in shown


def test_baselines_outlive_their_runs_and_move(home: Path, tmp_path: Path, capsys: Output) -> None:
    fill(home, runs=3)
    assert main(["baseline", "set", "r00", "r01", "r02", "--name", "golden"]) == 0
    file = tmp_path / "golden.json"
    assert main(["baseline", "export", "golden", "--out", str(file)]) == 0
    assert main(["history", "prune", "--older-than", "0"]) == 0
    capsys.readouterr()
    assert main(["history", "--json"]) == 0
    assert [run["run_id"] for run in lines(capsys)] == ["r00", "r01", "r02"]
    open_history(Layout(home)).remove_runs(["r00", "r01", "r02"])
    assert main(["baseline", "show", "golden", "--json"]) == 0
    assert len(lines(capsys)[0]["runs"]) == 3
    add(home, "now", speed=90.0, loss=0.5)
    assert main(["compare", "golden", "now", "--gate"]) == 5
    assert main(["baseline", "import", str(file)]) == 2
    assert main(["baseline", "import", str(file), "--name", "copy"]) == 0
    capsys.readouterr()
    assert main(["baseline", "list"]) == 0
    assert {"copy", "golden"} <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize("cut,what", [('"nodes"', "did you mean"), ('"runs"', "missing")])
def test_damaged_baseline_files(
    home: Path, tmp_path: Path, capsys: Output, cut: str, what: str
) -> None:
    """Exit 2 with file and line; nothing is set."""
    fill(home, runs=1)
    file = tmp_path / "b.json"
    assert main(["baseline", "set", "r00"]) == 0
    assert main(["baseline", "export", "finetune@c", "--out", str(file)]) == 0
    file.write_text(file.read_text().replace(cut, cut[:-2] + '"'))
    capsys.readouterr()
    assert main(["baseline", "import", str(file), "--name", "x"]) == 2
    shown = capsys.readouterr().err
    assert "b.json:" in shown
    assert what in shown
    assert main(["baseline", "show", "x"]) == 2


def test_a_failed_run_is_no_baseline(home: Path, capsys: Output) -> None:
    add(home, "f", status=Status.FAILED, speed=1.0)
    assert main(["baseline", "set", "f"]) == 2
    assert "is failed" in capsys.readouterr().err


def test_history_shows_a_trend(home: Path, capsys: Output) -> None:
    fill(home, runs=5)
    assert main(["history", "--limit", "2", "--metric", "speed"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["run", "r03", "r04"]
    assert len(rows[-1].split()[-1]) == 5
    assert main(["history", "--since", "yesterday"]) == 2


def test_a_gate_that_judges_nothing_is_no_pass(home: Path, capsys: Output) -> None:
    """Figures without a direction: a gate needs limits of its own."""
    add(home, "a", 1.0, fp8=100.0)
    add(home, "b", 2.0, fp8=80.0)
    assert main(["compare", "a", "b", "--gate"]) == 5
    assert "no figure was judged" in capsys.readouterr().out


@pytest.mark.parametrize("speed,code,verdict", [(100.0, 0, "pass"), (80.0, 5, "fail")])
def test_a_figure_without_direction_leaves_the_verdict_to_the_others(
    home: Path, capsys: Output, speed: float, code: int, verdict: str
) -> None:
    """It is shown with its ratio, and called neither good nor bad."""
    add(home, "a", 1.0, fp8=100.0, speed=100.0)
    add(home, "b", 2.0, fp8=10.0, speed=speed)

    assert main(["compare", "a", "b", "--gate", "--json"]) == code

    result = result_of(capsys)
    shown = {figure["name"]: (figure["verdict"], figure["ratio"]) for figure in result["figures"]}
    assert result["verdict"] == verdict
    assert shown == {"fp8": ("ungated", 0.1), "speed": (verdict, speed / 100)}


def test_a_baseline_is_replaced_on_request_alone(home: Path, capsys: Output) -> None:
    fill(home, runs=2)
    main(["baseline", "set", "r00", "--name", "golden"])
    capsys.readouterr()

    assert main(["baseline", "set", "r01", "--name", "golden"]) == 2
    assert "baseline golden exists, with r00" in capsys.readouterr().err
    main(["baseline", "show", "golden", "--json"])
    assert [run["run_id"] for run in lines(capsys)[0]["runs"]] == ["r00"]

    assert main(["baseline", "set", "r01", "--name", "golden", "--replace"]) == 0
    assert "it held r00" in capsys.readouterr().err
    main(["baseline", "show", "golden", "--json"])
    assert [run["run_id"] for run in lines(capsys)[0]["runs"]] == ["r01"]


def test_a_removed_baseline_is_gone_and_its_runs_stay(home: Path, capsys: Output) -> None:
    fill(home, runs=1)
    main(["baseline", "set", "r00", "--name", "golden"])

    assert main(["baseline", "remove", "golden"]) == 0
    assert main(["baseline", "remove", "golden"]) == 2
    assert "no baseline is called 'golden'" in capsys.readouterr().err
    main(["history", "--json"])
    assert [run["run_id"] for run in lines(capsys)] == ["r00"]


def test_a_choice_without_runs_is_no_empty_history(home: Path, capsys: Output) -> None:
    fill(home, runs=1)
    for words in (["--metric", "sped"], ["--metric", "sped", "--json"]):
        assert main(["history", *words]) == 0
        out, err = capsys.readouterr()
        assert out == ""
        assert "no runs like that in" in err
        assert "none has the metric 'sped': did you mean 'speed'?" in err
    assert main(["history", "--workload", "zzz", "--cluster", "yyy"]) == 0
    err = capsys.readouterr().err
    assert "none has the workload 'zzz': valid names: " in err
    assert "none has the cluster 'yyy': valid names: " in err


def test_exports_hold_every_figure(home: Path, tmp_path: Path, capsys: Output) -> None:
    """Parquet, CSV and JSON lines say the same."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    fill(home, runs=3)
    for format in ("csv", "jsonl", "parquet"):
        out = ["--format", format, "--out", str(tmp_path / format)]
        assert main(["history", "export", *out]) == 0
    with (tmp_path / "csv").open() as file:
        from_csv = [(r["run_id"], r["metric"], float(r["value"])) for r in csv.DictReader(file)]
    table = parquet.read_table(tmp_path / "parquet").to_pylist()
    assert [(row["run_id"], row["metric"], row["value"]) for row in table] == from_csv
    assert list(_figures(tmp_path / "jsonl")) == from_csv
    assert len(from_csv) == 6


def _figures(path: Path) -> Iterator[tuple[str, str, float]]:
    for line in path.read_text().splitlines():
        run = json.loads(line)
        for name, figure in run["figures"].items():
            yield run["run_id"], name, figure["value"]


def test_both_runs_are_in_each_chart(home: Path, tmp_path: Path) -> None:
    add(home, "a", 1.0, speed=100.0)
    add(home, "<b>", 2.0, speed=99.0)
    page = tmp_path / "c.html"
    assert main(["compare", "a", "<b>", "--html", str(page)]) == 0
    text = page.read_text()
    assert text.count("<polyline") == 2
    assert "A a" in text
    assert "B &lt;b&gt;" in text


def test_last_on_both_sides_is_refused(home: Path, capsys: Output) -> None:
    assert main(["compare", "last:3", "last:4"]) == 2
    assert main(["compare", "nothing", "last:4"]) == 2
    assert "history import" in capsys.readouterr().err


def test_a_damaged_baseline_is_refused_and_can_be_removed(home: Path, capsys: Output) -> None:
    store = open_history(Layout(home))
    store.record_run(make_entry("a", 1.0, speed=100.0))
    store.record_run(make_entry("b", 2.0, speed=100.0))
    assert main(["baseline", "set", "a", "--name", "x"]) == 0
    with sqlite3.connect(home / "history.sqlite") as connection:
        connection.execute("UPDATE baseline SET content = '{torn'")
    connection.close()

    assert main(["compare", "x", "b", "--gate"]) == 2
    assert "orchestrate baseline remove x" in capsys.readouterr().err
    assert main(["baseline", "remove", "x"]) == 0
    assert main(["baseline", "set", "a", "--name", "x"]) == 0


@pytest.mark.parametrize("name", ["last", "a"])
def test_a_baseline_does_not_hide_a_run(home: Path, capsys: Output, name: str) -> None:
    open_history(Layout(home)).record_run(make_entry("a", 1.0, speed=100.0))

    assert main(["baseline", "set", "a", "--name", name]) == 2
    assert "names a run already" in capsys.readouterr().err


def test_the_last_n_of_other_conditions_are_none_and_it_says_why(
    home: Path, capsys: Output
) -> None:
    store = open_history(Layout(home))
    store.record_run(make_entry("a", 1.0, speed=100.0))
    store.record_run(make_entry("b", 2.0, key=replace(KEY, gpus="8 x NVIDIA A100"), speed=100.0))

    assert main(["compare", "last:3", "b", "--gate"]) == 2
    said = capsys.readouterr().err
    assert "a and b differ in gpus: 8 x NVIDIA H200 and 8 x NVIDIA A100" in said
