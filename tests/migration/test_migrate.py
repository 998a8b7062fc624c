"""A migration from end to end, with real runs on this machine, which tests make slower: GO where
both sides are equal, NO-GO with the box named where something was planted.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.archive.read_archive import read_archive
from orchestrator.adapters.archive.write_archive import Member, write_archive
from orchestrator.adapters.migration.migration_folder import MigrationFolder
from orchestrator.adapters.migration.way_back import judge_way_back, run_way_back
from orchestrator.cli.main import main
from tests.core.test_migration import record

pytestmark = [pytest.mark.processes, pytest.mark.slow]

PROJECT = Path(__file__).with_name("project")
EQUAL: Mapping[str, Any] = {"tokens_per_s": 1000.0, "perplexity": 12.0, "trace": True}
PLANTED: Mapping[str, Any] = {"tokens_per_s": 920.0, "perplexity": 12.3, "trace": False}
STEP = "{{name: {}, workload: evidence, parameters: {{machine: {}}}, limit_s: 3000}}"


@dataclass(frozen=True)
class Lab:
    """A project whose one node is this machine, as ``machine.json`` describes it."""

    path: Path

    @property
    def cluster(self) -> str:
        return str(self.path / "lab.yaml")

    @property
    def folder(self) -> MigrationFolder:
        return MigrationFolder(self.path / "home" / "migrations" / "lab")

    def describe(self, machine: Mapping[str, Any]) -> None:
        (self.path / "machine.json").write_text(json.dumps(machine))


def make_lab(path: Path) -> Lab:
    shutil.copytree(PROJECT, path)
    defaults = {"transport": "local", "gpus": 0, "workdir": str(path / "node"),
                "python": {"interpreter": sys.executable}}  # fmt: skip
    inventory = {"name": "lab", "defaults": defaults, "nodes": ["n1"]}
    (path / "lab.yaml").write_text(json.dumps(inventory))
    steps = [STEP.format(name, path / "machine.json") for name in ("inference", "quality")]
    (path / "moved.yaml").write_text("name: moved\nsteps:\n" + "".join(f"  - {s}\n" for s in steps))
    playbook = path / "playbook.yaml"
    playbook.write_text(playbook.read_text().replace("SUITE", str(path / "moved.yaml")))
    return Lab(path)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Captured as it should be."""
    made = make_lab(tmp_path_factory.mktemp("migration") / "lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCHESTRATE_HOME", str(made.path / "home"))
        patch.chdir(made.path)
        made.describe(EQUAL)
        words = ["capture", "lab", "--cluster", made.cluster, "--playbook", "./playbook.yaml"]
        assert main(["migrate", *words]) == 0
        yield made


def result_of(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the one result of a command with ``--json``."""
    capsys.readouterr()
    code = main(["migrate", *words, "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert (result["type"], result["exit_code"]) == ("result", code)
    return code, result


def values_of(result: Mapping[str, Any], box: str) -> str:
    (found,) = (one for one in result["boxes"] if one["id"] == box)
    return "; ".join(line["value"] for line in found["lines"])


@pytest.mark.timeout(600)
def test_equal_sides_are_go_and_planted_faults_are_named(
    lab: Lab, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = read_archive(lab.folder.old, lambda name: name.startswith("packages/")).files
    pins = packages["packages/n1.txt"].decode().splitlines()
    assert pins[0] == f"# {sys.executable}"
    assert f"click=={metadata.version('click')}" in pins

    code, equal = result_of(capsys, "verify", "lab", "--cluster", lab.cluster, "--try-way-back")
    assert (code, equal["status"]) == (0, "go"), equal["boxes"]
    assert equal["open"] == []
    assert "succeeded" in values_of(equal, "way-back")
    assert equal["flags"] == [], "nothing is known of the limits of no GPU"
    same = shutil.copy(lab.folder.new, tmp_path / "same.tar.gz")

    lab.describe(PLANTED)
    code, planted = result_of(capsys, "verify", "lab", "--cluster", lab.cluster)
    lab.describe(EQUAL)
    assert (code, planted["status"]) == (5, "no-go"), planted["boxes"]
    assert planted["open"] == ["performance", "perplexity", "traces", "way-back"]
    assert "1,000 tok/s -> 920 tok/s (-8.0 %)" in values_of(planted, "performance")
    assert "12 -> 12.3: +0.3" in values_of(planted, "perplexity")
    assert "no trace on the new side" in values_of(planted, "traces")
    assert "not tried" in values_of(planted, "way-back")
    assert result_of(capsys, "report", "lab") == (5, planted)
    assert main(["migrate", "report", "lab"]) == 5
    shown = capsys.readouterr().out
    assert shown.splitlines()[-1] == (
        "NO-GO: 4 boxes open: performance, perplexity, traces, way-back"
    )
    assert "1,000 tok/s -> 920 tok/s (-8.0 %)" in " ".join(shown.split())
    assert "\\" not in shown, "text for a terminal, not Markdown"

    # Another machine: only the files, and the workloads that the suite names.
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(PROJECT, elsewhere)
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("ORCHESTRATE_HOME", str(elsewhere / "home"))
    old = shutil.copy(lab.folder.old, tmp_path / "travelled.tar.gz")
    for bundle, expected in ((same, ["way-back"]), (lab.folder.new, planted["open"])):
        words = ["verify", "there", "--against", str(old), "--bundle", str(bundle)]
        code, moved = result_of(capsys, *words)
        assert (code, moved["open"]) == (5, expected)
    assert 'class="fail"' in (elsewhere / "home/migrations/there/checklist.html").read_text()


def test_a_run_of_the_suite_becomes_a_bundle_as_it_ended(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    """One whose core step failed is bundled, and the command fails; one that is not over is not."""
    suites = lab.path / "home" / "suites"
    whole = min(suites.iterdir())
    failed = shutil.copytree(whole, suites / "failed", symlinks=True)
    left_open = shutil.copytree(whole, suites / "open", symlinks=True)
    ended = json.loads((whole / "result.json").read_bytes())
    (failed / "result.json").write_text(json.dumps({**ended, "exit_code": 1}))
    (left_open / "result.json").unlink()
    words = ["--cluster", lab.cluster, "--playbook", "./playbook.yaml", "--suite-run"]
    try:
        code, captured = result_of(capsys, "capture", "failed", *words, "failed")
        assert code == 1
        assert Path(captured["bundle"]).is_file()
        assert main(["migrate", "capture", "open", *words, "open"]) == 75
        assert "--resume" in (said := capsys.readouterr().err)
        assert "--run-id open" in said
        assert not MigrationFolder(lab.folder.path.with_name("open")).old.exists()
    finally:
        shutil.rmtree(failed)
        shutil.rmtree(left_open)


def test_the_run_that_is_resumed_is_the_one_that_is_bundled(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is called after its suite, though that is a path; and nothing is run again."""
    runs = sorted(path.name for path in (lab.path / "home" / "suites").iterdir())
    words = ["--cluster", lab.cluster, "--playbook", "./playbook.yaml", "--resume"]
    code, captured = result_of(capsys, "capture", "again", *words)
    bundled = read_archive(Path(captured["bundle"])).manifest.files

    assert code == 0
    assert sorted(path.name for path in (lab.path / "home" / "suites").iterdir()) == runs
    assert "-moved-" in runs[-1]
    assert any(file.path.startswith(f"runs/{runs[-1]}-inference/") for file in bundled)


def test_a_bundle_is_whole_or_refused(
    lab: Lab, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    content = bytearray(lab.folder.old.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "damaged.tar.gz").write_bytes(content)
    about = {"suite": "s"}
    members = [Member("machines.json", b'{"machines": []}')]
    for kind in ("suite", "migration"):
        write_archive(tmp_path / f"{kind}.tar.gz", kind, members, made=0.0, about=about)
    for name, word in (
        ("damaged", "not a whole archive"),
        ("suite", "an archive of the kind suite"),
        ("migration", "its manifest is not one of a migration"),
    ):
        against = str(tmp_path / f"{name}.tar.gz")
        assert main(["migrate", "verify", "x", "--against", against, "--bundle", against]) == 2
        assert word in capsys.readouterr().err


def test_what_cannot_be_is_said_before_anything_runs(
    lab: Lab, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    text = (lab.path / "playbook.yaml").read_text()
    other.write_text(text.replace("traces: [inference]", "traces: [inferense]"))
    cluster = ["--cluster", lab.cluster]
    for words, word in (
        (["capture", "lab", *cluster, "--playbook", "./playbook.yaml"], "captured before"),
        (["capture", "new", *cluster, "--playbook", str(other)], "inference"),
        (["capture", "../up", *cluster], "not a name of a migration"),
        (["capture", "new", "--playbook", "./playbook.yaml"], "no cluster is named"),
        (["verify", "lap", *cluster], "lab"),
        (["report", "nothing"], "was not verified yet"),
    ):
        assert main(["migrate", *words]) == 2
        assert word in capsys.readouterr().err
    assert not (lab.path / "home/migrations/new").exists()


def test_the_way_back_refuses_what_was_changed(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    old = str(lab.folder.old)
    result_of(capsys, "verify", "back", "--against", old, "--bundle", old)
    folder = MigrationFolder(lab.folder.path.with_name("back"))
    inventory = folder.restore / "inventory.yaml"
    inventory.write_text(inventory.read_text().replace("n1", "n2"))
    done = subprocess.run(
        ["sh", str(folder.way_back)], capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "ORCHESTRATE": "echo must not run"},
    )  # fmt: skip
    assert done.returncode != 0
    assert "inventory.yaml: FAILED" in done.stdout
    assert "must not run" not in done.stdout


def test_a_way_back_that_hangs_is_ended(tmp_path: Path) -> None:
    folder = MigrationFolder(tmp_path)
    folder.way_back.write_text("exec sleep 60\n")
    assert run_way_back(folder, "id", {"PATH": "/usr/bin:/bin"}, 0.2) == "over its limit of 0.2 s"
    folder.way_back.write_text("exit 3\n")
    assert run_way_back(folder, "id", {"PATH": "/usr/bin:/bin"}) == "exit 3"


def test_an_interrupt_ends_the_way_back_too(tmp_path: Path) -> None:
    folder = MigrationFolder(tmp_path)
    folder.way_back.write_text("echo $$\nkill -INT $PPID\nexec sleep 60\n")
    with pytest.raises(KeyboardInterrupt):
        run_way_back(folder, "id", {"PATH": "/usr/bin:/bin"})
    with pytest.raises(ProcessLookupError):
        os.kill(int(folder.way_back_log.read_text()), 0)


def test_a_way_back_to_another_set_up_is_none() -> None:
    before = record("old-1")
    assert judge_way_back("", before, before).differences == ()
    other = judge_way_back("", before, record("new-1"))
    assert other.succeeded
    assert other.differences == ("nodes: old and new",)
    assert not judge_way_back("exit 1", before, before).succeeded
    assert not judge_way_back("", None, before).succeeded
    assert not judge_way_back("", before, None).succeeded
