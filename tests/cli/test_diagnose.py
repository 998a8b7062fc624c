"""``diagnose`` on anybody's logs, and what a failed run says of its cause."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.diagnosis import log_sources as log_sources_module
from orchestrator.adapters.diagnosis.log_reader import MIB, Gathering, Window
from orchestrator.adapters.diagnosis.log_sources import log_sources, source_of
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.adapters.store.run_list import read_result, write_result
from orchestrator.cli.main import main
from orchestrator.core.base.outcome import Exited, Signalled
from orchestrator.core.run.events import RankExited
from orchestrator.core.verdict.result import (
    FailureResult,
    MetricResult,
    NodeResult,
    Status,
    Verdict,
)
from tests.architecture.source import ROOT
from tests.cli.runs_on_disk import finished
from tests.time_limits import scaled

OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
WATCHDOG = (
    "[E321 02:07:08.408271257 ProcessGroupNCCL.cpp:607] [Rank {0}] Watchdog caught collective "
    "operation timeout: WorkNCCL(SeqNum=9, OpType=ALLREDUCE, NumelIn=1, NumelOut=1, "
    "Timeout(ms)=600000) ran for 600060 milliseconds before timing out."
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def diagnosis_of(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    """Exit code and the JSON line."""
    code = main(["diagnose", "--json", *words])
    (line,) = capsys.readouterr().out.splitlines()
    record = json.loads(line)
    assert (record["type"], record["schema_version"]) == ("diagnosis", 1)
    return code, record


def eight_ranks(folder: Path) -> None:
    """Rank 3 ran out of memory, and the other seven waited for it."""
    for rank in range(8):
        text = OOM if rank == 3 else WATCHDOG.format(rank)
        (folder / f"train-rank{rank}.log").write_text(f"step 1 loss 2.3\n{text}\n")


def test_a_folder_of_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rank that ran out of memory is named, and the seven others are folded."""
    (tmp_path / "logs").mkdir()
    eight_ranks(tmp_path / "logs")

    code, record = diagnosis_of(capsys, str(tmp_path / "logs"))

    found = record["diagnosis"]
    assert (code, record["logs"], record["lines"]) == (0, 8, 16)
    assert (found["id"], found["rank"]) == ("CUDA-OOM-001", 3)
    assert found["consequences"] == ["7 ranks timed out waiting"]
    assert found["evidence"][0]["file"].endswith("logs/train-rank3.log")
    assert found["evidence"][0]["line"] == 2


@pytest.mark.parametrize("prefix", ["[rank{0}]: ", "{0}: ", "[gpu01/{0}] ", "[1,{0}]<stderr>:"])
def test_one_file_of_all_ranks(
    prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prefixes of lines tell ranks apart, whoever made them."""
    lines = [prefix.format(r) + (OOM if r == 3 else WATCHDOG.format(r)) for r in range(8)]
    (tmp_path / "slurm-4711.out").write_text("\n".join(lines))

    code, record = diagnosis_of(capsys, str(tmp_path / "slurm-4711.out"))

    assert (code, record["diagnosis"]["rank"]) == (0, 3)
    assert record["diagnosis"]["consequences"] == ["7 ranks timed out waiting"]


def test_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is piped in is read to its end."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"x\n{OOM}".encode())))

    code, record = diagnosis_of(capsys, "-")

    assert (code, record["diagnosis"]["id"]) == (0, "CUDA-OOM-001")
    assert record["diagnosis"]["evidence"][0]["file"] == "standard input"


@pytest.mark.parametrize(
    "piped, told",
    [
        ("fine\nfatal: bent\nbye", "standard input, 3 lines"),
        ("fatal: bent\n", "standard input, 1 line"),
        ("", "standard input, 0 lines"),
    ],
)
def test_standard_input_that_no_rule_knows(
    piped: str,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """How much was read is said, so that an empty pipe is seen as one."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped.encode())))

    code = main(["diagnose", "-"])

    out = capsys.readouterr().out
    assert code == 1
    assert out.startswith(f"no known failure pattern matched (read: {told})\n")
    assert out.count("fatal: bent") == piped.count("fatal: bent")


def test_no_rule_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That is said, with the lines that may tell, and the exit code is 1."""
    (tmp_path / "x.log").write_text("fine\nfatal: the widget is bent\nbye\n")

    code = main(["diagnose", str(tmp_path / "x.log")])

    out = capsys.readouterr().out
    assert code == 1
    assert f"no known failure pattern matched (read: {tmp_path}/x.log, 3 lines)" in out
    assert f"{tmp_path}/x.log:2: fatal: the widget is bent" in out


def test_text_holds_the_cause_the_lines_and_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what looks bad but is not, and nothing that steers a terminal."""
    (tmp_path / "x.log").write_text(
        "libibverbs: Warning: couldn't load driver 'libsiw-rdmav34.so'\n"
        "ModuleNotFoundError: No module named 'peft\x1b[2J'\n"
    )

    code = main(["diagnose", str(tmp_path / "x.log")])

    out = capsys.readouterr().out
    assert code == 0
    assert out.startswith("A Python package is missing (PY-MOD-001, certain)\n")
    assert f"  {tmp_path}/x.log:2: ModuleNotFoundError" in out
    assert "  remedy: " in out
    assert "  benign: NCCL-IB-008" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("by", ["name", "folder"])
def test_a_run(by: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its logs are read together with what its journal knows of endings."""
    ended = RankExited(node="b", rank=1, outcome=Exited(1), at=9.0)
    folder = finished(home, ended)
    (folder.log("b", "rank-1.err")).write_text("ModuleNotFoundError: No module named 'peft'\n")

    code, record = diagnosis_of(capsys, "last" if by == "name" else str(folder.path))

    found = record["diagnosis"]
    assert (code, found["id"], found["node"], found["rank"]) == (0, "PY-MOD-001", "b", 1)
    assert found["evidence"][0]["file"] == "logs/b/rank-1.err"


def test_a_run_in_which_nothing_failed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That is said, and no more: exit 0, also to programs."""
    finished(home)

    assert main(["diagnose", "r1"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("run r1 succeeded: nothing failed\n", "")
    code, record = diagnosis_of(capsys, "r1")
    assert (code, record["diagnosis"], record["nothing_failed"]) == (0, None, True)


def test_a_degraded_run_says_where_to_look(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its failures did not count in the end."""
    folder = finished(home)
    result = json.loads(folder.result.read_text())
    folder.result.write_text(json.dumps({**result, "status": "degraded"}))

    assert main(["diagnose", "r1"]) == 0
    out = capsys.readouterr().out
    assert out == (
        "run r1 degraded: nothing failed for good; orchestrate show r1 lists what did on the way\n"
    )


def test_neither_file_nor_run(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that means nothing is a usage error."""
    assert main(["diagnose", "nothing-of-this-name"]) == 2
    assert "neither a file nor a run" in capsys.readouterr().err


@pytest.mark.slow
def test_large_files_are_read_at_both_ends(tmp_path: Path) -> None:
    """The middle is skipped and counted, lines keep their numbers, memory stays small."""
    path = tmp_path / "big.log"
    filler = b"step 1 loss 2.31 tokens/s 4711\n" * 40_000
    with path.open("wb") as file:
        file.write(b"ModuleNotFoundError: No module named 'first'\n")
        for _ in range(16):
            file.write(filler)
        file.write(b"ModuleNotFoundError: No module named 'last'\n")
    gathering = Gathering()

    tracemalloc.start()
    gathering.read_file(path, source_of(path.name), Window(head=MIB, tail=MIB, counted=1 << 40))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert [clue.line for clue in gathering.clues] == [1, 16 * 40_000 + 2]
    assert gathering.skipped == {"big.log": path.stat().st_size - 2 * MIB}
    assert peak < 16 * MIB


def test_a_line_without_end_is_no_burden(tmp_path: Path) -> None:
    """Megabytes without a line end, and thousands of lines of one kind, leave little behind."""
    path = tmp_path / "odd.log"
    path.write_bytes(b"\xff\x00x" * MIB + b"\n" + (OOM.encode() + b"\n") * 5000)
    gathering = Gathering()

    gathering.read_file(path, source_of(path.name))

    assert [clue.line for clue in gathering.clues] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "name, node, rank",
    [
        ("rank-3.err", "", 3),
        ("logs/gpu02/rank-3.err", "gpu02", 3),
        ("logs/gpu02/attempt-2/rank-3.err", "gpu02", 3),
        ("logs/gpu02/launcher.err", "gpu02", None),
        ("out/none_abc/attempt_0/5/stderr.log", "", 5),
        ("train_rank12.txt", "", 12),
        ("node2-rank8.log", "node2", 8),
        ("slurm-4711_3.out", "", 3),
        ("slurm-4711.out", "", None),
        ("gpu07.log", "gpu07", None),
        ("train.log", "", None),
    ],
)
def test_names_of_files_tell_whose_they_are(name: str, node: str, rank: int | None) -> None:
    """As far as torchrun, Slurm, people and ourselves name them."""
    found = source_of(name)

    assert (found.node, found.rank) == (node, rank)


def test_a_folder_yields_its_logs_only(tmp_path: Path) -> None:
    """No model weights, no links, no pipes."""
    for name in ("a.log", "model.safetensors", "deep/b.err"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "link.log").symlink_to("/etc/passwd")

    found = [log.source.name for log in log_sources(tmp_path, "x/")]

    assert found == ["x/a.log", "x/deep/b.err"]


def test_a_folder_of_too_many_files_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log_sources_module, "MAX_FILES", 3)
    for number in range(3):
        (tmp_path / f"rank-{number}.log").write_text("torch.OutOfMemoryError: CUDA out of memory\n")
    assert main(["diagnose", str(tmp_path)]) == 0
    (tmp_path / "rank-3.log").write_text("")

    assert main(["diagnose", str(tmp_path)]) == 2

    assert "holds more than 3 files that may be logs" in capsys.readouterr().err


def test_a_result_of_before_has_no_diagnosis(home: Path) -> None:
    """Results that were written without the key are read as ever."""
    ended = RankExited(node="b", rank=1, outcome=Exited(1), at=9.0)
    folder = finished(home, ended)
    data = json.loads(folder.result.read_text())
    del data["failure"]["diagnosis"]
    folder.result.write_text(json.dumps(data))

    result = read_result(folder)

    assert result is not None
    assert isinstance(result.failure, FailureResult)
    assert result.failure.diagnosis is None


# Rank 1 fails; rank 0 fails in the same way, but because it is told to end.
JOB = """
import os, signal, time

def fail(*_):
    import a_module_that_nobody_has

if os.environ["RANK"] == "1":
    fail()
signal.signal(signal.SIGTERM, fail)
time.sleep(100)
"""


@pytest.mark.processes
def test_a_failed_run_says_why(tmp_path: Path, home: Path) -> None:
    """The failure still begins with rank and node; what the rank's log says comes with it."""
    (tmp_path / "job.py").write_text(JOB)
    node = f"transport: local, gpus: 0, python: {json.dumps(sys.executable)}"
    workdir = json.dumps(str(tmp_path / "node"))
    (tmp_path / "pair.yaml").write_text(
        f"name: pair\ndefaults: {{{node}, workdir: {workdir}}}\nnodes: ['n[1-2]']\n"
    )
    code = "import sys; from orchestrator.cli.main import main; sys.exit(main())"
    words = "run --cluster pair.yaml --launcher direct --json --run-id why -- job.py".split()
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        env={**os.environ, "ORCHESTRATE_HOME": str(home), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )

    failure = json.loads(done.stdout.splitlines()[-1])["failure"]
    assert done.returncode == 1, done.stderr
    assert failure["cause"] == "rank 1 on n2 exited with code 1"
    found = failure["diagnosis"]
    assert (found["id"], found["node"], found["rank"]) == ("PY-MOD-001", "n2", 1)
    assert found["evidence"][0]["file"] == "logs/n2/rank-1.err"
    assert "  diagnosis: rank 1 on n2 has no module a_module_that_nobody_has" in done.stderr


def test_a_launcher_that_was_told_to_end_is_not_the_cause(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing in the logs explains the rank that ended first; the run knows which that was."""
    folder = finished(home, RankExited(node="b", rank=1, outcome=Exited(2), at=9.0))
    told = "torch.distributed.elastic.multiprocessing.api: Sending process 9 closing signal SIGTERM"
    folder.log("a", "launcher.err").write_text(told + "\n")
    assert main(["diagnose", folder.run_id]) == 0
    out = capsys.readouterr().out
    assert "What the run itself found" in out
    assert "rank 1 on b exited with code 2" in out


LOST = NodeResult(name="b", state="lost", reason="no answer for 30 s")
MISSED = MetricResult(value=4.0, unit="nats", verdict=Verdict.FAIL, max=3.0)
GATE = "loss: the workload reported 4 nats, its gate asks for at most 3"


def with_result(folder: RunFolder, **changes: object) -> None:
    """The run's result, changed."""
    result = read_result(folder)
    assert result is not None
    write_result(folder, replace(result, status=Status.FAILED, **changes))  # type: ignore[arg-type]


def test_a_missed_gate_is_named_with_the_node_that_was_lost(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gate failed the run, and the lost node may be why: both are said."""
    folder = finished(home)
    failure = FailureResult(id="OR-GATE-001", cause=GATE, remedy="look")
    kept = NodeResult(name="a", state="used")
    with_result(folder, failure=failure, nodes=(kept, LOST), metrics={"loss": MISSED})

    code, record = diagnosis_of(capsys, "r1")

    found = record["diagnosis"]
    assert (code, found["id"], found["cause"]) == (0, "OR-GATE-001", GATE)
    assert found["besides"] == ["node b was lost: no answer for 30 s"]
    assert main(["diagnose", "r1"]) == 0
    assert "  also: node b was lost: no answer for 30 s" in capsys.readouterr().out


def test_a_lost_node_is_named_with_the_gate_that_was_missed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other way round, as well, and the lost node but once."""
    folder = finished(home)
    failure = FailureResult(id="OR-NODE-001", cause="b: no answer for 30 s", node="b")
    with_result(folder, failure=failure, nodes=(LOST,), metrics={"loss": MISSED})

    _, record = diagnosis_of(capsys, "r1")

    assert record["diagnosis"]["node"] == "b"
    assert record["diagnosis"]["besides"] == [GATE]


def test_what_logs_say_stands_beside_what_the_run_knows(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rank's own error is the cause; that another node was lost is said with it."""
    folder = finished(home, RankExited(node="a", rank=0, outcome=Exited(1), at=9.0))
    with_result(folder, nodes=(LOST,))
    folder.log("a", "rank-0.err").write_text("ModuleNotFoundError: No module named 'peft'\n")

    _, record = diagnosis_of(capsys, "r1")

    assert (record["diagnosis"]["id"], record["diagnosis"]["rank"]) == ("PY-MOD-001", 0)
    assert "node b was lost: no answer for 30 s" in record["diagnosis"]["besides"]


def test_what_a_kernel_said_first_is_the_cause(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A GPU that fell off the bus is named, not the collectives that timed out because of it."""
    folder = finished(home, RankExited(node="a", rank=0, outcome=Signalled(6), at=9.0))
    xid = "2026-05-01T10:00:00 kernel: NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus."
    folder.log("b", "kernel.out").write_text(xid + "\n")
    for node, rank in (("a", 0), ("b", 1)):
        late = f"2026-05-01 10:10:01 {WATCHDOG.format(rank)}\n"
        folder.log(node, f"rank-{rank}.err").write_text(late)

    code, record = diagnosis_of(capsys, "r1")

    assert code == 0
    assert record["diagnosis"]["node"] == "b"
    assert "fallen off the bus" in record["diagnosis"]["evidence"][0]["text"]
