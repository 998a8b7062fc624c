"""Foreign text on screens: whatever steers a terminal is taken out, on disk it stays raw.

The views alone are held to the same in tests/view; here commands are, on streams and on a terminal.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.report.document import load_report
from orchestrator.adapters.report.html_report import render_html
from orchestrator.adapters.report.markdown import render_markdown
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.adapters.store.run_list import read_result
from orchestrator.cli.main import main
from tests.architecture.source import ROOT
from tests.cli.runs_on_disk import finished
from tests.security.conftest import MakeSshd
from tests.security.looking import steers
from tests.security.rows import STEERING
from tests.time_limits import Deadline, wait_for_exit

Capture = pytest.CaptureFixture[str]
rows = pytest.mark.parametrize("text", STEERING.values(), ids=STEERING)
EVERYTHING = "".join(STEERING.values())
# What a terminal acts upon; rich's own colours and cursor moves are not among it.
ACTIVE = ["\x1b]", "\x1bP", "\x1b[2J\x1b[1;1H", "\x9b", "\x9d", "\u202e", "\u2066", "\x0e", "\x07"]


@pytest.fixture
def hostile_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], RunFolder]:
    """A finished run in whose every text ``text`` stands: names, reasons, figures, logs."""
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))

    def make(text: str) -> RunFolder:
        folder = finished(tmp_path / "home")
        result = json.loads(folder.result.read_bytes())
        result |= {"cluster": text, "workload": text, "warnings": [text], "status": "failed"}
        result["nodes"] = [{"name": text, "state": "lost", "reason": text}]
        result["ladder"] = [{"rung": text, "outcome": "failed", "reason": text, "seconds": None}]
        result["metrics"] = {text: {"value": 1.0, "unit": text, "verdict": "ungated"}}
        places = {"node": text, "rank": 0, "log": "logs/a/rank-0.out", "others": [text]}
        failure = {"id": text, "cause": text, "remedy": text, "last_line": text, **places}
        result["failure"] = failure
        folder.result.write_text(json.dumps(result))
        raw = text.encode("utf-8", "surrogatepass")
        for stream in ("out", "err"):
            folder.log("a", f"rank-0.{stream}").write_bytes(raw + b"\n" + raw)
        return folder

    return make


COMMANDS = [
    ["ps"],
    ["show", "r1"],
    ["show", "r1", "--color", "always"],
    ["logs", "r1"],
    ["logs", "r1", "--fold"],
    ["logs", "r1", "--no-prefix", "--stderr"],
    ["logs", "r1", "--color", "always"],
    ["attach", "r1"],
    ["attach", "r1", "--follow", "--verbose"],
]


@rows
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_about_runs(
    words: list[str], text: str, hostile_run: Callable[[str], RunFolder], capsys: Capture
) -> None:
    """Both streams show words only; the log on disk has every byte."""
    folder = hostile_run(text)

    main(words)

    out, err = capsys.readouterr()
    assert "internal error" not in err
    assert "before" in out + err
    assert steers(out + err, colours="always" in words) == []
    raw = text.encode("utf-8", "surrogatepass")
    assert folder.log("a", "rank-0.out").read_bytes() == raw + b"\n" + raw


@pytest.mark.parametrize("words", [["ps", "--json"], ["show", "r1", "--json"]], ids=" ".join)
def test_machines_get_it_whole(
    words: list[str], hostile_run: Callable[[str], RunFolder], capsys: Capture
) -> None:
    """JSON is ASCII, and says exactly what was there."""
    hostile_run(EVERYTHING)
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert steers(out) == []
    assert json.loads(out)["workload"] == EVERYTHING


def test_reports_hold_no_markup_and_no_formula(hostile_run: Callable[[str], RunFolder]) -> None:
    """Scripts, entities and table cells are text; no address leads out of the folder."""
    for text in ("<script>alert(1)</script>", "x' onload='alert(1)", "=cmd|' /C calc'!A0", "| a |"):
        folder = hostile_run(text)
        result = read_result(folder)
        assert result is not None
        report = load_report(folder, result)
        page = render_html(report)
        assert "<script" not in page
        assert " onload='" not in page
        assert "javascript:" not in page
        assert "<script" not in render_markdown(report)
        shutil.rmtree(folder.path)


def on_a_terminal(words: list[str], **env: str) -> str:
    """What a command writes to a terminal of its own."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **env}
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *words],
        env=environ,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
    )
    os.close(theirs)
    shown = b""
    deadline = Deadline(60)
    try:
        with contextlib.suppress(OSError):  # the terminal ends with its last user
            while not deadline.passed:
                ready, _, _ = select.select([ours], [], [], 1.0)
                if ready:
                    chunk = os.read(ours, 65536)
                    if not chunk:
                        break
                    shown += chunk
    finally:
        os.close(ours)
        process.kill()
        wait_for_exit(process, 10)
    return shown.decode(errors="surrogateescape")


@pytest.mark.processes
@pytest.mark.parametrize(
    "words",
    [["attach", "r1", "--follow", "--verbose"], ["show", "r1"], ["ps"], ["logs", "r1"]],
    ids=" ".join,
)
def test_on_a_real_terminal(words: list[str], hostile_run: Callable[[str], RunFolder]) -> None:
    """Also where lines are redrawn and tables are drawn."""
    folder = hostile_run(EVERYTHING)
    shown = on_a_terminal(words, ORCHESTRATE_HOME=str(folder.path.parent.parent))
    assert "before" in shown
    assert [code for code in ACTIVE if code in shown] == []


@pytest.mark.processes
@pytest.mark.parametrize("options", [[], ["--prefix"]], ids=["folded", "prefix"])
@pytest.mark.parametrize("shell", ["", "/bin/bash"], ids=["local", "ssh"])
def test_what_nodes_say_to_exec(
    shell: str,
    options: list[str],
    make_sshd: MakeSshd,
    write_cluster: Callable[..., Path],
    capsys: Capture,
) -> None:
    """Both streams of a program that writes every row, some unfinished, some not text at all."""
    server = make_sshd(shell) if shell else None
    cluster = write_cluster(server, "asyncssh" if shell else "local")
    raw = "\n".join([*STEERING.values(), "before\r\x1b"]).encode() + b"\xff\xfe\n" + b"\x1b[" * 9
    code = f"import os; os.write(1, {raw!r}); os.write(2, {raw!r})"
    assert main(["exec", "-C", str(cluster), *options, "--", sys.executable, "-c", code]) == 0
    out, err = capsys.readouterr()
    assert out.count("before") > len(STEERING)
    assert err.count("before") > len(STEERING)
    assert steers(out + err) == []


@pytest.mark.processes
def test_output_without_end(write_cluster: Callable[..., Path], capsys: Capture) -> None:
    """A node that never stops talking costs bounded memory, and its time limit."""
    cluster = str(write_cluster(None, "local"))
    words = ["exec", "-C", cluster, "--timeout", "1"]
    assert main([*words, "--", "sh", "-c", "yes | tr -d '\\n'"]) == 124
    out, err = capsys.readouterr()
    assert len(out) < 5_000_000
    assert "did not finish" in err


@rows
def test_messages_about_files(text: str, tmp_path: Path, capsys: Capture) -> None:
    """Names of files and what stands in them are foreign too."""
    folder = tmp_path / text.replace("/", "")
    folder.mkdir()
    path = folder / "c.yaml"
    path.write_text(json.dumps({"name": "c", text: 1, "nodes": [{"name": text}]}))
    for words in (
        ["cluster", "validate", str(path)],
        ["cluster", "show", str(path) + "x"],
        ["workload", "show", str(folder)],
        ["cluster", "import", "hostfile", str(folder / "none")],
        ["cluster", "import", "hostfile", str(path)],
        ["run", "-C", text],
        [text],
    ):
        main(words)
        out, err = capsys.readouterr()
        assert "internal error" not in err
        assert steers(out + err) == [], words


SUMMARY: dict[str, Any] = {"name": "c", "nodes": ["a"]}


@rows
def test_texts_of_inventories(text: str, tmp_path: Path, capsys: Capture) -> None:
    """A summary that could steer is refused; one that is shown is harmless."""
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps({**SUMMARY, "summary": text}))
    main(["cluster", "show", str(path)])
    out, err = capsys.readouterr()
    assert steers(out + err) == []
