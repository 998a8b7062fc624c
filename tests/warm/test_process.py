"""The process that stays warm: what it has loaded, how it begins and ends, and that commands do the
same with it as without.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.warm.client import VERBS
from orchestrator.adapters.warm.preloaded import MODULES
from orchestrator.cli.main import main
from tests.architecture.source import ROOT
from tests.hosts.running import wait_until
from tests.time_limits import scaled
from tests.warm.bed import HERE, NAME, NOBODY, Warm, reporting_home, warm_home

pytestmark = pytest.mark.processes

INVENTORY = "name: here\ndefaults: {transport: local}\nnodes: ['n[1-2]']\n"
# What libraries read while they are imported, that is not in the likeness: whose values nothing of
# ours asks for. `sysconfig` keeps where a user's own packages would be.
READ_IN_VAIN = {"HOME"}
LOOK = """
import functools, gc, json, os, sys, tempfile, threading
read = set()
ask = type(os.environ).__getitem__
type(os.environ).__getitem__ = lambda self, name: (read.add(name), ask(self, name))[1]
open_before = set(os.listdir("/proc/self/fd"))
from orchestrator.adapters.warm import become, keeper, warm_process
from orchestrator.adapters.warm.likeness import variables_read_at_start
warm_process.load()
type(os.environ).__getitem__ = ask
filled = [
    f"{f.__module__}.{f.__qualname__}"
    for f in gc.get_objects()
    if isinstance(f, functools._lru_cache_wrapper)
    and f.__module__.startswith("orchestrator.") and f.cache_info().currsize
]
known = variables_read_at_start({os.fsencode(name): b"" for name in read})
streams = (sys.stdin, sys.stdout, sys.stderr)
kept = [
    name
    for name, module in sys.modules.items()
    if name not in {"sys", "__main__"}
    and any(value is stream for value in vars(module).values() for stream in streams)
]
json.dump({
    "read": sorted(read - {os.fsdecode(name) for name in known}),
    "threads": threading.active_count(),
    "opened": sorted(set(os.listdir("/proc/self/fd")) - open_before),
    "filled": filled,
    "kept": kept,
    "names": [tempfile.tempdir, sys.modules["platform"]._uname_cache],
    "loaded": sorted(sys.modules),
}, sys.stdout)
"""
MORE = """
import atexit, sys
before = set(sys.modules)
from orchestrator.adapters.warm.preloaded import MODULES
import importlib
for name in MODULES: importlib.import_module(name)
loaded = set(sys.modules)
from orchestrator.cli.main import main
sys.argv[0] = "orchestrate"
atexit.register(lambda: print(*(set(sys.modules) - loaded), file=sys.stderr))
sys.exit(main())
"""


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with warm_home(tmp_path_factory.mktemp("home")) as warm:
        yield warm


@pytest.fixture
def inventory(tmp_path: Path) -> str:
    path = tmp_path / "here.yaml"
    path.write_text(INVENTORY)
    return str(path)


def test_what_it_loads_says_nothing_of_where_it_is() -> None:
    """No cache of ours is filled, no variable read but those that the likeness holds, nothing
    opened, no thread started, no stream kept: a fork begins as a new process does.
    """
    found = json.loads(python(LOOK).stdout)

    assert set(found["read"]) <= READ_IN_VAIN
    assert found["filled"] == found["opened"] == found["kept"] == []
    assert set(MODULES) <= set(found["loaded"])
    assert found["threads"] == 1
    assert found["names"] == [None, None]
    # Libraries that start threads of their own, or ask their environment what to do.
    assert {"numpy", "torch", "ray", "paramiko", "multiprocessing"}.isdisjoint(found["loaded"])


@pytest.mark.parametrize("verb", ["exec", "sync", "probe", "plan", "ps"])
def test_commands_find_everything_loaded(verb: str, inventory: str, tmp_path: Path) -> None:
    """What is imported on the way of a command belongs into the list."""
    (tmp_path / "t.py").write_text("print(1)\n")
    words = {"exec": ["--", "true"], "plan": ["--", "t.py"]}.get(verb, [])
    cluster = [] if verb == "ps" else ["-C", inventory]
    done = python(MORE, verb, *cluster, *words, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    last = done.stderr.splitlines()[-1] if done.stderr.strip() else ""
    assert [name for name in last.split() if name.startswith("orchestrator")] == []


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "ps --nope",
        "show no-such-run",
        "workload show sleep",
        "exec -C {inventory} -- sh -c 'echo $MARK; pwd; ulimit -n; umask; tty; exit 3'",
        "exec -C {inventory} --nodes n1 --json -- echo x",
        "plan -C {inventory} -- t.py",
    ],
)
def test_it_does_what_the_command_does_by_itself(
    warm: Warm, words: str, inventory: str, tmp_path: Path
) -> None:
    """The same on both streams, the same exit code."""
    (tmp_path / "t.py").write_text("print(1)\n")
    split = [word.replace("{inventory}", inventory) for word in shell_words(words)]
    env = {"MARK": "ä", "COLUMNS": "70", "NO_COLOR": "1"}
    forked = warm.run(*split, env=env, cwd=tmp_path)
    alone = warm.run(*split, program=HERE, env={**env, "ORCHESTRATE_WARM": "0"}, cwd=tmp_path)

    assert (forked.returncode, forked.stdout, forked.stderr) == (
        alone.returncode,
        alone.stdout,
        alone.stderr,
    )


def test_a_run_leaves_the_same_files(warm: Warm, inventory: str, tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("print('rank')\n")
    words = ("run", "-C", inventory, "--json", "--", "t.py")
    ended = [
        warm.run(*words, cwd=tmp_path),
        warm.run(*words, program=HERE, env={"ORCHESTRATE_WARM": "0"}, cwd=tmp_path),
    ]
    results = [json.loads(done.stdout.splitlines()[-1]) for done in ended]
    files = [
        sorted(str(path.relative_to(run)) for path in run.rglob("*"))
        for run in (warm.folder.parent / "runs" / result["run_id"] for result in results)
    ]

    assert [result["status"] for result in results] == ["succeeded", "succeeded"]
    assert files[0] == files[1]


def test_a_detached_run_goes_on_alone(warm: Warm, inventory: str, tmp_path: Path) -> None:
    """Its client and their keeper have ended; the coordinator is what `stop` finds."""
    (tmp_path / "t.py").write_text("import time\nprint('on', flush=True)\ntime.sleep(600)\n")
    begun = warm.run("run", "-C", inventory, "--detach", "--", "t.py", cwd=tmp_path)
    run = begun.stdout.strip()
    try:
        assert begun.returncode == 0, begun.stderr
        assert "running" in warm.run("ps").stdout
    finally:
        stopped = warm.run("stop", run, program=HERE, env={"ORCHESTRATE_WARM": "0"})
    assert stopped.returncode == 0, stopped.stderr


def test_verbs_are_ours() -> None:
    known = {verb.encode() for verb in main.__globals__["cli"].list_commands(None)}
    assert known >= VERBS


def test_changed_code_ends_it(tmp_path: Path) -> None:
    """The client does it itself, by what is on the disk now."""
    packages = tmp_path / "packages"
    packages.mkdir()
    with reporting_home(tmp_path / "home", PYTHONPATH=str(packages)) as warm:
        assert warm.run("ps").returncode == 0
        (packages / "another.py").touch()
        assert warm.run("ps").returncode == NOBODY
        wait_until("its end", lambda: not warm.sockets)


def test_it_ends_when_nobody_asks(tmp_path: Path) -> None:
    with reporting_home(tmp_path, unused_s=0.5) as warm:
        wait_until("its end", lambda: not warm.sockets)
        assert warm.run("ps").returncode == NOBODY
    assert not list(warm.folder.iterdir())


def test_it_ends_when_its_socket_is_removed(tmp_path: Path) -> None:
    with reporting_home(tmp_path) as warm:
        warm.sockets[0].unlink()
        wait_until("its end", lambda: not list(warm.folder.iterdir()))


def test_closing_connections_ends_it(tmp_path: Path) -> None:
    with warm_home(tmp_path) as warm:
        closed = warm.run("connections", "close", program=HERE)
        assert "the warm process ended" in closed.stdout
        assert not list(warm.folder.iterdir())


def test_it_holds_nothing_that_was_handed_down(tmp_path: Path) -> None:
    """Such as the lock of `flock FILE orchestrate run`, or a pipe that is read to its end."""
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    held = os.open(tmp_path / "lock", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    with warm_home(tmp_path / "home", pass_fds=(held,)):
        os.close(held)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(lock)


def test_it_is_not_started_where_it_is_switched_off(tmp_path: Path) -> None:
    warm = Warm(tmp_path)
    assert warm.run("--version", program=HERE, env={"ORCHESTRATE_WARM": "0"}).returncode == 0
    assert not warm.folder.exists()


def test_one_that_cannot_start_is_not_tried_again_and_again(tmp_path: Path) -> None:
    """What killed it left its lock."""
    warm = Warm(tmp_path)
    warm.folder.mkdir(mode=0o700)
    name = warm.run(program=NAME).stdout.strip()
    lock = warm.folder / f"{name}.lock"
    lock.write_text("started\n")
    assert warm.run("--version", program=HERE).returncode == 0
    assert list(warm.folder.iterdir()) == [lock]
    assert lock.read_text() == "started\n"


def python(program: str, *words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", program, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )


def shell_words(text: str) -> list[str]:
    import shlex

    return shlex.split(text)
