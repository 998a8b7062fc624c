"""sync over real local agents: what travels, what is told, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.adapters.catalog.bundled import bundled_kit
from orchestrator.cli.main import main

pytestmark = pytest.mark.processes
KIT = [f".orchestrate/kit/orchestrate_kit/{p.name}" for p in sorted(bundled_kit().glob("*.py"))]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one file that travels and one that does not."""
    folder = tmp_path / "project"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "train.py").write_text("print('hello')\n")
    (folder / "__pycache__" / "train.pyc").write_bytes(bytes(10))
    return folder


@pytest.fixture
def inventory(tmp_path: Path) -> str:
    path = tmp_path / "here.yaml"
    workdir = tmp_path / "node"
    path.write_text(
        f"name: here\ndefaults: {{transport: local, workdir: {workdir}}}\nnodes: [n1]\n"
    )
    return str(path)


def sync(inventory: str, project: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    code = main(["sync", "-C", inventory, "--workdir", str(project), "--json"])
    record: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return {**record, "exit": code}


def test_the_project_arrives_and_is_not_sent_twice(
    inventory: str, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first sync sends every file, the second none; the node has what was here."""
    first = sync(inventory, project, capsys)
    second = sync(inventory, project, capsys)

    (sent,) = first["nodes"]  # type: ignore[misc]
    (again,) = second["nodes"]  # type: ignore[misc]
    assert (first["exit"], second["exit"], first["digest"]) == (0, 0, second["digest"])
    assert (sent["sent_files"], again["sent_files"]) == (1 + len(KIT), 0)
    copy = tmp_path / "node" / "node" / "snapshots" / str(first["digest"])
    assert (copy / "train.py").read_text() == "print('hello')\n"
    assert not (copy / "__pycache__").exists()


def test_what_was_left_out_is_told_with_its_rule(
    inventory: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """People see which rule kept a file here."""
    assert main(["sync", "-C", inventory, "--workdir", str(project)]) == 0
    out = capsys.readouterr().out
    assert f"{1 + len(KIT)} files" in out
    assert "left out: default: __pycache__: 1 file" in out
    assert "__pycache__" in out


def test_a_dry_run_names_every_file_and_contacts_nobody(
    inventory: str, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a cluster or without one: what would travel, and what not by which rule."""
    for cluster in ([], ["-C", inventory]):
        assert main(["sync", *cluster, "--workdir", str(project), "--dry-run"]) == 0
        out, err = capsys.readouterr()
        assert out.splitlines()[-1 - len(KIT) :] == [*KIT, "train.py"]
        assert "left out: default: __pycache__" in out
        assert "nothing was sent" in err
    assert main(["sync", "--workdir", str(project), "--dry-run", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["paths"] == [*KIT, "train.py"]
    assert (record["nodes"], record["skipped"][0]["rule"]) == ([], "default: __pycache__")
    assert not (tmp_path / "node").exists()


def test_a_sync_needs_a_cluster(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only a dry run goes without."""
    assert main(["sync", "--workdir", str(project)]) == 2
    assert "--cluster" in capsys.readouterr().err


def test_a_node_that_cannot_be_reached_fails_the_sync(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 4 with the node's name and the reason; the others are served all the same."""
    path = tmp_path / "mixed.yaml"
    local = f"{{name: n1, transport: local, workdir: {tmp_path}/node}}"
    path.write_text(
        f"name: mixed\nnodes:\n  - {local}\n  - {{name: gone, ssh: 127.0.0.1, port: 1}}\n"
    )

    done = sync(str(path), project, capsys)

    assert done["exit"] == 4
    here, gone = done["nodes"]  # type: ignore[misc]
    assert (here["complete"], gone["complete"], gone["name"]) == (True, False, "gone")
    assert gone["error"]["what"]


def test_a_folder_that_is_not_there_is_a_usage_error(
    inventory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, and no node was contacted."""
    assert main(["sync", "-C", inventory, "--workdir", str(tmp_path / "missing")]) == 2
    assert not (tmp_path / "node").exists()
