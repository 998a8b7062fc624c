"""What benchmarks work on and what they print: trees from a seed, import profiles, tables."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from bench_lib.base.report import Measured, as_json, judged, markdown, table
from bench_lib.base.rounds import Case, Scenario
from bench_lib.base.stats import Quantity, Sample, Target
from bench_lib.control_plane.imports import parse_imports
from bench_lib.control_plane.tree import Shape, make_tree, paths, sizes
from hypothesis import given
from hypothesis import strategies as st

SMALL = Shape(name="small", files=60, bytes=200_000)
IMPORTS = """\
import time: self [us] | cumulative | imported package
import time:       100 |        100 |   inner
import time:       250 |        350 | outer
something else
"""


@given(st.integers(1, 500), st.integers(10_000, 10_000_000), st.integers())
def test_sizes_add_up_to_the_total(files: int, total: int, seed: int) -> None:
    """Whatever is drawn, no file is empty and the tree is as large as asked for."""
    drawn = sizes(Shape(name="x", files=files, bytes=total), random.Random(seed))

    assert len(drawn) == files
    assert min(drawn) >= 1
    assert abs(sum(drawn) - total) <= 1.5 * files


@given(st.integers(0, 400), st.integers())
def test_paths_differ_and_stay_shallow(count: int, seed: int) -> None:
    """Every file has a place of its own, at most four folders deep."""
    made = list(paths(count, random.Random(seed)))

    assert len(set(made)) == count
    assert all(2 <= len(path.parts) <= 5 for path in made)


@pytest.mark.processes
def test_the_same_tree_is_made_again(tmp_path: Path) -> None:
    """Two runs of the benchmark send the same bytes under the same names."""
    contents = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        files = make_tree(folder, SMALL)
        contents.append({file.relative_to(folder): file.read_bytes() for file in files})

    assert contents[0] == contents[1]
    assert len(set(contents[0].values())) == SMALL.files
    assert (tmp_path / "first" / ".git").is_dir()


def test_import_profiles_are_read() -> None:
    """Only the profile's own lines count, with their depth."""
    inner, outer = parse_imports(IMPORTS)

    assert (inner.module, inner.self_us, inner.whole_us, inner.depth) == ("inner", 100, 100, 1)
    assert (outer.module, outer.whole_us, outer.depth) == ("outer", 350, 0)


def test_a_table_is_aligned_markdown() -> None:
    """Every line has the same width and the same columns."""
    lines = table(("a", "long heading"), [("value", "x")]).splitlines()

    assert lines == [
        "| a     | long heading |",
        "| ----- | ------------ |",
        "| value | x            |",
    ]


def test_reports_name_every_figure_and_verdict() -> None:
    """Text and JSON say the same: medians with their spread, ratios, what was missed."""
    target = Target(case="8 hosts", quantity=Quantity.WALL, limit=0.5, against="them")
    scenario = Scenario(
        name="s", title="Title", ours="us", targets=[target], note="How it was measured.",
        cases=[Case(name="8 hosts", contenders=[])],
    )  # fmt: skip
    ours = [Sample(wall_s=wall, cpu_s=0.1, hosts_cpu_s=0.2) for wall in (1.0, 2.0, 3.0, 2.0, 2.0)]
    theirs = [Sample(wall_s=2.0, cpu_s=0.4) for _ in range(5)]
    taken = {"8 hosts": {"us": ours, "them": theirs}}
    result = Measured(scenario=scenario, samples=taken, verdicts=judged(scenario, taken))

    text = markdown({"date": "today"}, [result])
    record = json.loads(json.dumps(as_json({"date": "today"}, [result])))

    assert "2.000 (1.000..3.000)" in text
    assert "How it was measured." in text
    assert "| MISSED" in text
    assert "not known" in text  # the hosts' CPU time of those that lack it
    (verdict,) = record["scenarios"][0]["targets"]
    assert (verdict["value"], verdict["verdict"], verdict["rounds"]) == (1.0, "MISSED", [0.5, 1.5])
    assert record["scenarios"][0]["samples"]["8 hosts"]["us"][2]["wall_s"] == 3.0
