"""Servers of this node: healthy, named when they die, gone at the end."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrate_serving import EngineError, EngineSettings, SettingsError, start_engines
from orchestrate_serving.checks import NoAnswer, warm_up
from orchestrate_serving.settings import Start, environment_of
from orchestrator.core.launchers.launcher import LaunchSpec
from orchestrator.core.launchers.plain import plan_direct
from tests.time_limits import Deadline, assert_within, budget

FAKE = Path(__file__).parent / "programs" / "fake_server.py"
processes = pytest.mark.processes


def settings(*options: str, **changes: object) -> EngineSettings:
    """The fake server by its command; its options are words of the command line."""
    command = shlex.join(["{python}", "-I", "-S", str(FAKE), "--port", "{port}", *options])
    given: dict[str, object] = {"command": command, "ready_s": budget(20), "stop_s": budget(5)}
    return EngineSettings(engine="custom", **{**given, **changes})  # type: ignore[arg-type]


def is_alive(pid: int) -> bool:
    """A zombie, which nobody but its parent can remove, has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def servers_on(port: str) -> list[str]:
    """Processes of the fake server that were given this port."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if {str(FAKE), port} <= set(words):
                found.append(path.parent.name)
    return found


def wait_for(true: Callable[[], bool], what: str) -> None:
    deadline = Deadline(10)
    while not true():
        assert not deadline.passed, f"{what}: not within {deadline}"
        time.sleep(0.01)


def failure(asked: EngineSettings, logs: Path) -> str:
    """What is said of an engine that does not come up."""
    with pytest.raises(EngineError) as caught, start_engines(asked, logs):
        pytest.fail("it became healthy")
    return str(caught.value)


def ask(base_url: str) -> int:
    connection = http.client.HTTPConnection(base_url.removeprefix("http://"), timeout=budget(5))
    try:
        connection.request("GET", "/v1/models")
        return connection.getresponse().status
    finally:
        connection.close()


@processes
def test_two_engines_answer_on_ports_and_gpus_of_their_own_and_are_gone_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "RANK", "3"
    )  # of the rank that starts them: a server must not join its ranks
    asked = settings(gpus=("4", "5", "6", "7"), tensor_parallel=2)
    with start_engines(asked, tmp_path) as engines:
        first, second = engines
        engines.check()
        assert first.base_url != second.base_url
        assert [ask(engine.base_url) for engine in engines] == [200, 200]
        assert [engine.model for engine in engines] == ["fake", "fake"]
        assert [engine.gpus for engine in engines] == [("4", "5"), ("6", "7")]
        assert first.startup_s > 0
    assert not any(is_alive(engine.pid) for engine in engines)
    logs = [(tmp_path / f"engine-{place}.log").read_text() for place in range(2)]
    assert ["gpus 4,5 None" in logs[0], "gpus 6,7 None" in logs[1]] == [True, True]


def test_an_engine_is_given_nothing_of_the_rank_that_starts_it() -> None:
    """A server that finds where ranks meet would join them."""
    spec = LaunchSpec(
        node="n1",
        node_rank=0,
        names=("n1",),
        ranks=(0,),
        world_size=1,
        interpreter="python3",
        command=("serve",),
        master_addr="10.0.0.1",
        master_port="29500",
        decided=frozenset({"TORCH_NCCL_ASYNC_ERROR_HANDLING"}),
    )
    (process,) = plan_direct(spec)
    of_a_rank = {variable.name: "1" for variable in process.env}
    assert {"RANK", "MASTER_ADDR", "TORCHELASTIC_RESTART_COUNT"} < of_a_rank.keys()

    kept = environment_of(settings(), Start(index=0, gpus=()), {**of_a_rank, "HF_HOME": "/hub"})

    assert kept == {"HF_HOME": "/hub"}


@processes
def test_the_command_is_an_argument_vector(tmp_path: Path) -> None:
    """No shell reads it: what would be a command, a variable or a glob there is a plain word."""
    hostile = "$(touch made) `touch made` ; touch made | * $HOME {{braces}}"
    with start_engines(settings("--word", hostile), tmp_path) as (engine,):
        words = json.loads(engine.log.read_text().splitlines()[0].partition(" ")[2])
    assert words[-1] == hostile.replace("{{", "{").replace("}}", "}")
    assert not Path("made").exists()


@processes
def test_one_that_dies_at_its_start_is_named_with_its_last_lines(tmp_path: Path) -> None:
    began = time.monotonic()
    said = failure(settings("--fail", "no weights in /models/x", ready_s=600), tmp_path)
    assert_within("named", time.monotonic() - began, 5)
    assert said.startswith("engine 0 (custom) ended with status 1 ")
    assert said.endswith("\n  | reading the model\n  | no weights in /models/x")
    assert str(tmp_path / "engine-0.log") in said


@processes
def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    said = failure(EngineSettings(engine="custom", command="no-such-server"), tmp_path)
    assert said.startswith("engine 0 (custom) cannot be started: no-such-server: No such file")


@processes
def test_one_that_never_becomes_healthy_ends_at_the_deadline(tmp_path: Path) -> None:
    said = failure(settings("--never-healthy", ready_s=1), tmp_path)
    found = re.search(r"did not become healthy within 1 s \(http://127.0.0.1:(\d+)\)", said)
    assert found, said
    assert not servers_on(found[1])


@processes
def test_one_that_does_not_speak_the_protocol_is_named(tmp_path: Path) -> None:
    command = shlex.join(["{python}", "-m", "http.server", "{port}", "--bind", "{host}"])
    said = failure(settings(command=command, health="/"), tmp_path)
    assert "is no OpenAI-compatible server: /v1/models answered 404" in said


@processes
def test_one_that_is_killed_in_mid_run_is_named(tmp_path: Path) -> None:
    with start_engines(settings(engines=2), tmp_path) as engines:
        os.kill(engines[1].pid, signal.SIGKILL)

        def named() -> bool:
            try:
                engines.check()
            except EngineError as error:
                return str(error).startswith("engine 1 (custom) ended with signal SIGKILL ")
            return False

        wait_for(named, "the engine that was killed")
    assert not is_alive(engines[0].pid)


@processes
def test_all_of_one_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """Its child, and one that left its process group, too."""
    with start_engines(settings("--stubborn", stop_s=0.2), tmp_path) as (engine,):
        pids = pids_of(tmp_path)
        assert pids[0] == engine.pid
        assert list(map(is_alive, pids)) == [True] * 3
    assert not any(map(is_alive, pids))


@processes
def test_a_port_that_is_taken_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SettingsError, match=f"port {port} of 127.0.0.1 cannot be used"):
            start_engines(settings(port=port), tmp_path).__enter__()
    assert not list(tmp_path.iterdir())


@processes
def test_nobody_who_listens_is_no_answer() -> None:
    with pytest.raises(NoAnswer, match="/v1/completions"):
        warm_up("127.0.0.1", 1, "m", budget(5))


@pytest.mark.parametrize(
    "asked, words",
    [
        (EngineSettings(engine="vlm"), "engine vlm is none of builtin, vllm, sglang"),
        (EngineSettings(engine="custom"), "engine custom needs command"),
        (EngineSettings(engine="vllm"), "engine vllm needs model"),
        (EngineSettings(command="x"), "command is for engine custom, not builtin"),
        (EngineSettings(tensor_parallel=2), "cannot spread a model over GPUs"),
        (EngineSettings(health="health"), "health 'health' is no path that begins with /"),
        (settings("{weights}"), r"\{weights\} is none of"),
        (settings("{port"), "expected '}'"),
        (settings(command="serve 'x"), "No closing quotation"),
        (settings(tensor_parallel=2), "tensor_parallel is 2, and this node has no GPU"),
        (settings(gpus=("0",), engines=2), "2 engines of 1 GPUs do not fit this node, which has 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    asked: EngineSettings, words: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=words):
        start_engines(asked, tmp_path).__enter__()
    assert not list(tmp_path.iterdir())


def pids_of(logs: Path) -> list[int]:
    """Those that the stubborn server wrote."""
    (line,) = (
        line
        for line in (logs / "engine-0.log").read_text().splitlines()
        if line.startswith("pids ")
    )
    return list(map(int, line.split()[1:]))
