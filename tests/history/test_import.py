"""Folders of runs become entries of the history: with their key, figures and curves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.store.journal import Journal, JournalReader
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.store.run_list import read_result, write_result
from orchestrator.adapters.sync import git_head
from orchestrator.adapters.sync.git_head import head_commit
from orchestrator.cli.main import main
from orchestrator.core.base.codec import from_json, to_json
from orchestrator.core.history.run_record import KEY_PARTS, ComparisonKey, RunRecord
from orchestrator.core.model.facts import Ecc, Facts, Gpu
from orchestrator.core.model.workload import Direction
from orchestrator.core.run.events import Event, Prepared, Probed
from orchestrator.core.verdict.result import MetricResult
from tests.architecture.source import ROOT
from tests.cli.runs_on_disk import begin, finished
from tests.time_limits import scaled

Output = pytest.CaptureFixture[str]
PROGRAM = """
import sys
from orchestrator.cli.main import main
code = main(sys.argv[1:])
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
sys.exit(code)
"""


def equip(folder: RunFolder, gpu: str = "NVIDIA H200", driver: str = "580.1") -> None:
    """Give the run's nodes GPUs and modules, as if probes had found them."""
    entries = [(e.t, from_json(Event, e.event)) for e in JournalReader(folder.journal).read_all()]
    folder.journal.unlink()
    with Journal(folder.journal) as journal:
        journal.append_many((t, to_json(_equipped(event, gpu, driver))) for t, event in entries)


def _equipped(event: Event, gpu: str, driver: str) -> Event:
    match event:
        case Probed(node=node, facts=facts):
            return replace(event, facts=_facts(facts, node, gpu, driver))
        case Prepared():
            modules = {"torch": "2.13.0", "nvidia-nccl-cu13": "2.28.9"}
            return replace(event, modules=modules)
        case _:
            return event


def _facts(facts: Facts, node: str, gpu: str, driver: str) -> Facts:
    gpus = tuple(
        Gpu(index=n, name=gpu, uuid=f"{node}-{n}", power_limit_w=700.0, ecc=Ecc(enabled=True))
        for n in range(2)
    )
    return replace(facts, gpus=gpus, driver=driver, cuda="13.0")


def imported(home: Path) -> RunRecord:
    assert main(["history", "import"]) == 0
    (run,) = open_history(Layout(home)).find_runs("r1")
    return run


def test_a_folder_tells_key_figures_and_curves(home: Path, capsys: Output) -> None:
    folder = finished(home)
    equip(folder)
    result = read_result(folder)
    assert result is not None
    speed = MetricResult(value=9.0, unit="tok/s", direction=Direction.HIGHER)
    write_result(folder, replace(result, metrics={"speed": speed}))
    begin(home, "unfinished")
    run = imported(home)
    assert run.figures["speed"].value == 9.0
    assert (run.key.gpus, run.key.gpu_mode) == ("4 x NVIDIA H200", "700 W, ECC")
    assert (run.key.nodes, run.key.driver, run.key.cuda) == ("a,b", "580.1", "13.0")
    assert (run.key.torch, run.key.nccl) == ("2.13.0", "2.28.9")
    assert run.key.serials
    assert run.key.configuration
    store = open_history(Layout(home))
    assert store.read_curves("r1")["loss"] == ((0, 2.0), (1, 1.0), (2, 2.0 / 3))
    output = capsys.readouterr()
    assert "1 runs imported, 1 skipped" in output.out
    assert "it has no result yet" in output.err


def test_only_what_differs_makes_another_key(home: Path) -> None:
    """The same run twice has one key; another driver, GPU or argument has another."""
    folder = finished(home)
    equip(folder)
    first = imported(home).key
    assert imported(home).key == first
    equip(folder, driver="999.0")
    assert differing(first, imported(home).key) == ["driver"]
    equip(folder, gpu="NVIDIA H100")
    assert differing(first, imported(home).key) == ["gpus"]
    equip(folder)
    request = json.loads(folder.request.read_text())
    request["job"]["arguments"] = ["--other"]
    folder.request.write_text(json.dumps(request))
    assert differing(first, imported(home).key) == ["configuration"]


def differing(a: ComparisonKey, b: ComparisonKey) -> list[str]:
    return [part for part in KEY_PARTS if getattr(a, part) != getattr(b, part)]


def test_damaged_folders_are_named_and_left_out(home: Path, tmp_path: Path, capsys: Output) -> None:
    folder = finished(home)
    folder.result.write_text("{")
    assert main(["history", "import", str(folder.path)]) == 0
    assert "0 runs imported, 1 skipped" in capsys.readouterr().out
    assert main(["history", "import", str(tmp_path / "nowhere")]) == 2


@pytest.mark.processes
def test_sqlalchemy_is_loaded_for_postgresql_alone(home: Path) -> None:
    """It takes longer to import than these commands take."""
    for words in (["history"], ["ps"], ["baseline", "list"]):
        done = subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM, *words],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=scaled(60),
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert {"sqlalchemy", "psycopg", "pydantic"} & set(done.stderr.split()) == set()


@pytest.mark.processes
def test_the_commit_is_what_git_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from files where these hold it: loose, packed, detached, in a work tree beside."""
    project, beside = tmp_path / "project", tmp_path / "beside"
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org"]
    there = [*git, "-C", str(project)]
    subprocess.run([*git, "init", "--quiet", str(project)], check=True)
    subprocess.run([*there, "commit", "--quiet", "--allow-empty", "--message=m"], check=True)
    expected = {"loose": _asked(project)}
    monkeypatch.setattr(git_head, "asked_commit", lambda _: "asked")
    found = {"loose": head_commit(project)}
    for name, words, folder in (
        ("packed", ["pack-refs", "--all"], project),
        ("beside", ["worktree", "add", "--quiet", "-b", "a/b", str(beside)], beside),
        ("detached", ["checkout", "--quiet", "--detach"], project),
        ("newer", ["commit", "--quiet", "--allow-empty", "--message=n"], project),
    ):
        subprocess.run([*there, *words], check=True)
        found[name], expected[name] = head_commit(folder), _asked(folder)

    assert found == expected
    subprocess.run([*there, "symbolic-ref", "refs/heads/c", "refs/heads/a/b"], check=True)
    (project / ".git/HEAD").write_text("ref: refs/heads/c\n")
    assert head_commit(project) == "asked"


def _asked(folder: Path) -> str:
    argv = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.processes
def test_the_commit_is_that_around_the_code(tmp_path: Path) -> None:
    """Empty without a repository, without a commit, and in a folder that is not there."""
    assert head_commit(tmp_path) == ""
    assert head_commit(tmp_path / "nowhere") == ""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    assert head_commit(tmp_path) == ""
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message=m"], check=True)
    asked = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert head_commit(tmp_path) == asked.stdout.strip()
