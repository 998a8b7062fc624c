"""A command that a warm process forked finds what one finds that Python was started for."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.running import wait_until
from tests.time_limits import scaled, wait_for_exit
from tests.warm.bed import NOBODY, REPORTER, Warm, reporting_home

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with reporting_home(tmp_path_factory.mktemp("home")) as warm:
        yield warm


def both(warm: Warm, *words: str, **options: Any) -> tuple[Any, Any]:
    """What the two ways end with, of the same command in the same surroundings."""
    forked = warm.run("ps", *words, **options)
    argv = [sys.executable, "-P", str(REPORTER), "--here", "ps", *words]
    env = {**warm.env, **options.pop("env", {})}
    options = {"capture_output": True, "text": True, **options}
    started = subprocess.run(argv, env=env, timeout=scaled(60), check=False, **options)
    return forked, started


def found(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    for number, target in said["descriptors"].items():
        said["descriptors"][number] = target.partition("[")[0]  # of a pipe: another one each time
    return said


def test_it_finds_everything_where_it_is(warm: Warm, tmp_path: Path) -> None:
    """Variables, folder, descriptors, signals, limits, zone, streams."""
    env = {"TZ": "Asia/Kathmandu", "COLUMNS": "61", "LINES": "17", "ODD": "\udcff=\n"}
    forked, started = both(warm, "a b", "", "$x", cwd=tmp_path, env=env)

    assert found(forked) == found(started)
    assert found(forked)["cwd"] == str(tmp_path)


def test_what_was_handed_down_arrives_by_its_number(warm: Warm, tmp_path: Path) -> None:
    """`<(command)` of a shell is a descriptor that a word names."""
    file = tmp_path / "file"
    file.write_text("x")
    with file.open() as opened:
        forked, started = both(warm, pass_fds=[opened.fileno()])
        number = str(opened.fileno())

    assert found(forked)["descriptors"][number] == str(file)
    assert found(forked) == found(started)


def test_ignored_and_blocked_signals_stay_so(warm: Warm) -> None:
    """As of `nohup`, and of what a shell starts in the background."""

    def before() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})

    forked, started = both(warm, preexec_fn=before)

    assert found(forked) == found(started)
    assert found(forked)["blocked"] == [signal.SIGUSR2]


def test_a_terminal_stays_one(warm: Warm) -> None:
    """Its size, and streams that write line by line."""
    said = []
    here = [sys.executable, "-P", str(REPORTER), "--here"]
    for argv in (warm.argv(["ps", "terminal"]), [*here, "ps", "terminal"]):
        master, slave = pty.openpty()
        os.set_blocking(master, False)
        done = subprocess.run(
            argv,
            env=warm.env,
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=subprocess.PIPE,
            timeout=scaled(60),
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said.append(json.loads(os.read(master, 1 << 16)))
        os.close(slave)
        os.close(master)

    assert said[0] == said[1]
    assert said[0]["terminal"] == [False, True, False]


@pytest.mark.parametrize("words", [["exit", "0"], ["exit", "7"], ["fail"], ["say", "no end"]])
def test_it_ends_as_it_would(warm: Warm, words: list[str]) -> None:
    """Exit codes, words at the end, and what was still in a buffer."""
    forked, started = both(warm, *words)

    ends = [(done.returncode, done.stdout, done.stderr) for done in (forked, started)]
    assert ends[0] == ends[1]


def test_a_bug_shows_its_traceback(warm: Warm) -> None:
    forked, started = both(warm, "raise")

    assert (forked.returncode, started.returncode) == (1, 1)
    assert forked.stderr.endswith("KeyError: 'a bug'\n")


def test_forks_do_not_share_their_randomness(warm: Warm) -> None:
    assert warm.run("ps", "random").stdout != warm.run("ps", "random").stdout


@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGINT"])
def test_a_signal_of_the_client_is_the_commands(warm: Warm, number: str) -> None:
    """Both end by it."""
    client = warm.start("ps", "wait", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    command = command_of(client)
    client.send_signal(signal.Signals[number])

    assert wait_for_exit(client, 30) == -signal.Signals[number]
    assert not Path(f"/proc/{command}").exists()


def test_a_command_that_was_killed_is_told_so(warm: Warm) -> None:
    client = warm.start("ps", "wait", stdout=subprocess.PIPE)
    os.kill(command_of(client), signal.SIGKILL)

    assert wait_for_exit(client, 30) == -signal.SIGKILL


def test_a_client_that_was_killed_takes_its_command_along(warm: Warm) -> None:
    client = warm.start("ps", "wait", stdout=subprocess.PIPE)
    command = command_of(client)
    client.kill()
    wait_for_exit(client, 30)

    wait_until("the command's end", lambda: not Path(f"/proc/{command}").exists())


def test_a_command_does_not_outlive_its_keeper(warm: Warm) -> None:
    """Nobody else would know how it ends."""
    client = warm.start("ps", "wait", stdout=subprocess.PIPE)
    command = command_of(client)
    parent = int(Path(f"/proc/{command}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)

    assert wait_for_exit(client, 30) == -signal.SIGKILL
    wait_until("the command's end", lambda: not Path(f"/proc/{command}").exists())


def test_a_stopped_command_stops_its_client(warm: Warm) -> None:
    """As Ctrl-Z does; both go on together."""
    client = warm.start("ps", "wait", stdout=subprocess.PIPE)
    command = command_of(client)
    os.kill(command, signal.SIGSTOP)
    wait_until("the client stops", lambda: state_of(client.pid) == "T")
    client.send_signal(signal.SIGCONT)
    wait_until("the command goes on", lambda: state_of(command) == "S")
    client.terminate()

    assert wait_for_exit(client, 30) == -signal.SIGTERM


@pytest.mark.parametrize("what", ["umask", "nice", "limit", "closed stdin"])
def test_what_is_not_alike_does_it_itself(warm: Warm, what: str) -> None:
    """A fork could not give it, or not take it back."""

    def before() -> None:
        match what:
            case "umask":
                os.umask(0o77)
            case "nice":
                os.nice(1)
            case "limit":
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99))
            case _:
                os.close(0)

    assert warm.run("ps", preexec_fn=before).returncode == NOBODY
    assert warm.run("ps", env={"LC_ALL": "C"}).returncode == NOBODY
    assert warm.run("ps").returncode == 0


def command_of(client: subprocess.Popen[bytes]) -> int:
    assert client.stdout is not None
    with client.stdout:
        return int(client.stdout.readline())


def state_of(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
