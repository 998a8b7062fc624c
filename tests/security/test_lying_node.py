"""A node whose agent lies: real runs with one field of its answers changed on the way.

Bounds of frames, of facts and of listings one by one are in tests/contracts/agent and
tests/engine; here no lie may become our bug, reach the terminal, or leave the run's folder.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main
from tests.security.looking import steers
from tests.security.rows import STEERING

pytestmark = pytest.mark.processes

Capture = pytest.CaptureFixture[str]
HARMLESS = {0, 1, 4, 75, 124}
EVIL = "".join(STEERING.values()) + "<script>alert(1)</script>"
HUGE = 10**30
DEEP: Any = 0
for _ in range(20):
    DEEP = [DEEP]

# Stands between the coordinator and the real agent; LIES maps a field to what it becomes.
LIAR = """#!{python} -I
import json, subprocess, sys
lies = json.loads({lies!r})
real = subprocess.Popen([{python!r}, *sys.argv[1:]], stdout=subprocess.PIPE)
out = sys.stdout.buffer
def changed(frame):
    for name, value in lies.items():
        first, _, second = name.partition(".")
        if second and isinstance(frame.get(first), dict):
            frame[first][second] = value
        elif first in frame and not second:
            frame[first] = value
    return frame
for line in real.stdout:
    try:
        frame = json.loads(line)
    except ValueError:
        out.write(line)
    else:
        payload = real.stdout.read(frame.get("payload", 0))
        if frame.get("event") != "hello":
            frame = changed(frame)
        out.write(json.dumps(frame).encode() + b"\\n" + payload)
    out.flush()
"""
ENDED = {"event": "rank-exited", "rank": 0, "outcome": {"exited": 0}, "t": 1.0, "by_us": False}

LIES: dict[str, dict[str, Any]] = {
    "facts-text": {"facts": EVIL},
    "facts-empty": {"facts": {}},
    "facts-hostname": {"facts.hostname": EVIL},
    "facts-negative": {"facts.cpus": -1},
    "facts-huge": {"facts.memory_bytes": HUGE},
    "facts-gpus": {"facts.gpus": [{"index": 0, "name": EVIL}] * 200},
    "facts-gpu-name": {"facts.gpus": [{"index": 0, "name": EVIL, "uuid": EVIL}]},
    "facts-clock-late": {"facts.wall_clock": 1e11},
    "facts-clock-early": {"facts.wall_clock": 0.0},
    "facts-deep": {"facts.modules": DEEP},
    "notes": {"notes": [EVIL]},
    "interpreter-number": {"interpreter": 5},
    "interpreter-text": {"interpreter": EVIL},
    "interpreter-shell": {"interpreter": "/bin/sh -c 'touch canary'"},
    "modules-list": {"modules": [EVIL]},
    "modules-evil": {"modules": {EVIL: EVIL, "torch": {"a": 1}}},
    "port-zero": {"port": 0},
    "port-text": {"port": EVIL},
    "port-true": {"port": True},
    "dial-numbers": {"results": [1, 2, 3]},
    "dial-nothing": {"results": [None]},
    "dial-mapping": {"results": {"a": 1}},
    "dial-evil": {"results": [{"ok": False, "error": EVIL, "local": EVIL}]},
    "dial-yes": {"results": [{"ok": True, "local": EVIL}] * 5},
    "dial-lists": {"results": [{"ok": True, "local": [1], "error": {}}] * 5},
    "launch": {"supervisor": None, "already": EVIL, "alive": EVIL},
    "reserved": {"reserved": EVIL},
    "holder": {"reserved": False, "holder": {"run": EVIL, "user": EVIL, "since": HUGE}},
    "holder-number": {"reserved": False, "holder": 5, "lock": EVIL},
    "have": {"have": EVIL},
    "clean": {"clean": EVIL, "survivors": [EVIL, {"comm": EVIL, "pid": EVIL, "state": EVIL}]},
    "survivors": {"clean": False, "survivors": HUGE, "killed": EVIL},
    "record-unknown": {"record.event": EVIL},
    "record-rank-absent": {"record": {**ENDED, "rank": 10**9}},
    "record-rank-negative": {"record": {**ENDED, "rank": -1}},
    "record-code-256": {"record": {**ENDED, "outcome": {"exited": 256}}},
    "record-code-true": {"record": {**ENDED, "outcome": {"exited": True}}},
    "record-signal": {"record": {**ENDED, "outcome": {"signalled": 0}}},
    "record-lost": {"record": {**ENDED, "outcome": {"lost": EVIL}}},
    "record-time": {"record.t": 1e308},
    "record-last-line": {"record": {**ENDED, "outcome": {"exited": 1}, "last_line": EVIL}},
    "record-label": {
        "record": {**ENDED, "event": "process-exited", "label": EVIL, "outcome": {"exited": 3}}
    },
    "stream-up": {"file": "../../../escaped.out"},
    "stream-evil": {"file": EVIL},
    "stream-number": {"file": 7},
    "stream-gap": {"offset": 10**15},
    "stream-negative": {"offset": -1},
    "stream-next": {"next": EVIL},
    "outputs": {"count": EVIL},
    "errors": {"ok": False, "error": {"id": EVIL, "message": EVIL}},
    "errors-listed": {"ok": False, "error": {"id": "OR-AGENT-BUSY", "message": EVIL}},
    "ok-text": {"ok": EVIL},
    "id": {"id": EVIL},
}
RANK = """
import os, sys
from pathlib import Path
print("before", flush=True)
Path(os.environ["ORCHESTRATE_OUTPUT_DIR"], "made.txt").write_text("x")
report = Path(os.environ["ORCHESTRATE_REPORT_DIR"], "rank-%s.jsonl" % os.environ["RANK"])
report.write_text('{"type": "metric", "name": "loss", "value": 1.0, "step": 1}\\n')
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two nodes on this machine whose work directories are apart."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "rank.py").write_text(RANK)
    defaults = {"transport": "local", "gpus": 0, "python": sys.executable}
    nodes = [{"name": name, "workdir": str(tmp_path / name)} for name in ("n1", "n2")]
    cluster = {"name": "c", "defaults": defaults, "nodes": nodes}
    (folder / "c.yaml").write_text(json.dumps(cluster))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    return folder


def lie(project: Path, monkeypatch: pytest.MonkeyPatch, lies: dict[str, Any]) -> None:
    """From now on, `python3` of the nodes is the liar."""
    folder = project.parent / "bin"
    folder.mkdir()
    (folder / "python3").write_text(LIAR.format(python=sys.executable, lies=json.dumps(lies)))
    (folder / "python3").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


LIMITS = "connect=8 probe=4 prepare=4 reach=3 launch=4 grace=1 collect=3 clean=3 silence=2 lease=4"


def run(*options: str) -> int:
    words = ["run", "-C", "c.yaml", "--run-id", f"r{os.getpid()}", "--launcher", "direct"]
    words += ["--timeout", "2", *(word for limit in LIMITS.split() for word in ("--budget", limit))]
    return main([*words, *options, "--", "rank.py"])


@pytest.mark.parametrize("lies", LIES.values(), ids=LIES)
def test_no_lie_becomes_our_bug(
    lies: dict[str, Any], project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The run ends by itself with a code that people can act on; the screen stays ours."""
    lie(project, monkeypatch, lies)

    code = run("--verbose", "--follow")

    captured = capsys.readouterr()
    assert code in HARMLESS, captured.err
    assert not steers(captured.err + captured.out)
    assert "internal error" not in captured.err
    home = project.parent / "home"
    assert not (home / "errors").exists()
    assert {path.name for path in project.iterdir()} == {"rank.py", "c.yaml"}
    assert not list(project.parent.rglob("escaped*"))
    assert not list(project.parent.rglob("canary"))
    for page in home.glob("runs/*/report.html"):
        assert "<script" not in page.read_text()
    for words in (["show", "last"], ["logs", "last"], ["ps"]):
        assert main(words) in HARMLESS
        captured = capsys.readouterr()
        assert not steers(captured.err + captured.out), words


def test_without_a_lie_the_run_succeeds(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The stand-in itself changes nothing."""
    lie(project, monkeypatch, {})
    assert run("--json") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["status"], result["world_size"]) == ("succeeded", 2)
    assert (project.parent / "bin").exists()


def test_the_real_agent_was_asked(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A lie about the interpreter does change the run: the stand-in is in between."""
    lie(project, monkeypatch, {"interpreter": "/nonexistent/python"})
    assert run("--json") not in {0, 70}
