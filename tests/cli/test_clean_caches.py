"""clean --caches over real local agents: what nodes keep for later runs, and what is left of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.cli.main import main
from orchestrator.engine.oneshot.clean_caches import CacheSize, parse_caches

pytestmark = pytest.mark.processes
OLD, YOUNG = "a" * 40, "b" * 40


@pytest.fixture
def inventory(tmp_path: Path) -> str:
    path = tmp_path / "here.yaml"
    away = "{name: gone, ssh: 127.0.0.1, port: 1}"
    local = f"{{name: n1, transport: local, workdir: {tmp_path}/node}}"
    path.write_text(f"name: here\nnodes:\n  - {local}\n  - {away}\n")
    return str(path)


@pytest.fixture
def snapshots(tmp_path: Path) -> Path:
    """Two snapshots on the node, of which one has not been used for years."""
    folder = tmp_path / "node" / "node" / "snapshots"
    folder.mkdir(parents=True, mode=0o700)
    (tmp_path / "node" / "node").chmod(0o700)
    for name in (OLD, YOUNG):
        (folder / name).mkdir()
        (folder / name / "weights").write_bytes(b"w" * 1_000_000)
    os.utime(folder / OLD, (1, 1))
    return folder


def names(folder: Path) -> list[str]:
    return [path.name for path in sorted(folder.iterdir())]


def test_what_it_would_free_is_what_it_frees(
    inventory: str, snapshots: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run changes nothing and shows the same figures."""
    clean = ["clean", "--caches", "-C", inventory, "--nodes", "n1"]
    assert main([*clean, "--dry-run"]) == 0
    would = capsys.readouterr().out
    assert names(snapshots) == [OLD, YOUNG]
    assert main(clean) == 0
    did = capsys.readouterr().out
    assert names(snapshots) == [YOUNG]
    assert would.replace("would free", "freed").split() == did.split()
    assert did.split() == [
        *("node", "snapshots", "environments", "agents", "freed"),
        *("n1", "1", "0", "0", *did.split()[-2:]),
    ]
    assert "KiB" in did or "MiB" in did
    assert main(clean) == 0
    assert capsys.readouterr().out.split()[-2:] == ["0", "B"]


def test_what_was_used_just_now_stays_whatever_age_is_asked_for(
    inventory: str, snapshots: Path
) -> None:
    """A run that is being prepared has no supervisor that names what it needs."""
    clean = ["clean", "--caches", "-C", inventory, "--nodes", "n1", "--older-than", "0"]
    assert main(clean) == 0
    assert names(snapshots) == [YOUNG]


def test_a_node_out_of_reach_is_named(
    inventory: str, snapshots: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are cleaned all the same; exit 4."""
    assert main(["clean", "--caches", "-C", inventory]) == 4
    assert "gone" in capsys.readouterr().err
    assert names(snapshots) == [YOUNG]


@pytest.mark.parametrize("words", [["r1"], ["--all"], ["--local"], ["--discard"]])
def test_runs_and_caches_are_not_cleaned_in_one_command(
    words: list[str], inventory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clean", "--caches", "-C", inventory, *words]) == 2
    assert "do not go together" in capsys.readouterr().err


def test_caches_need_a_cluster_and_a_dry_run_needs_caches(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["clean", "--caches"]) == 2
    assert "--cluster" in capsys.readouterr().err
    assert main(["clean", "--all", "--dry-run"]) == 2
    assert "--caches" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [None, [], {"snapshots": 3}, {"snapshots": {"entries": -1}}])
def test_answers_without_sense_count_as_nothing(answer: object) -> None:
    assert set(parse_caches(answer).values()) == {CacheSize(0, 0)}
