"""What a node tells of ranks that make no progress: true, bounded, and in time."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.agent_client.channel import AgentError
from orchestrator.node_agent.attempt.launch import FLIGHT_PIPE as PIPE
from orchestrator.node_agent.attempt.launch import keep_usable_pipes
from orchestrator.node_agent.hang import flight_recorder as flight
from orchestrator.node_agent.hang import stacks
from orchestrator.node_agent.hang.proc_status import waits_in
from tests.contracts.agent.attempts import (
    Attempt,
    eventually,
    exists,
    launcher,
    rank,
    shell,
    shimmed,
)
from tests.contracts.agent.conftest import MakeAttempt
from tests.time_limits import assert_within, scaled, slowdown

NAP = "echo up; sleep 300"
SPIN = "echo up; while :; do :; done"
# A rank as torch makes it: it owns a pipe and writes its record when something comes through.
RECORDING = """
import os, select, sys
pipe = os.environ["TORCH_NCCL_DEBUG_INFO_PIPE_FILE"] + os.environ["RANK"] + ".pipe"
os.mkfifo(pipe)
fd = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
print("up", flush=True)
while True:
    select.select([fd], [], [])
    os.read(fd, 128)
    print("dumping", file=sys.stderr, flush=True)
    with open(os.environ["TORCH_FR_DUMP_TEMP_FILE"] + os.environ["RANK"], "wb") as file:
        file.write(bytes.fromhex(sys.argv[1]))
"""
# As py-spy 0.4 prints it.
STACKS = """Process 4711: python -u train.py
Python v3.11.7 (/usr/bin/python3.11)

Thread 4800 (idle): "pt_autograd_0"
    run (torch/autograd/graph.py:829)
Thread 4711 (idle): "MainThread"
    all_reduce (torch/distributed/distributed_c10d.py:2806)
    wrapper (torch/distributed/c10d_logger.py:81)
    train (train.py:40)
    <module> (train.py:61)
"""
RAS = """NCCL version 2.28.9 compiled with CUDA 13.0
Job summary
===========
#0-0 (cf7f31d9ae407d14) MISMATCH
  Communicator ranks have different AllReduce operation counts
  Rank 0 has launched up to operation 6 -- GPU 0 managed by process 1 on node 192.0.2.2
  Rank 1 has launched up to operation 5 -- GPU 1 managed by process PID on node 127.0.0.1
"""


def record(entered: int) -> dict[str, Any]:
    """What torch 2.11 recorded of a rank that entered ``entered`` all-reduces, shortened."""
    entries = [
        {
            "frames": [{"name": "all_reduce", "filename": "distributed_c10d.py", "line": 3068}],
            "record_id": number - 1,
            "pg_id": 0,
            "process_group": ("0", "default_pg"),
            "collective_seq_id": number,
            "p2p_seq_id": 0,
            "op_id": number,
            "profiling_name": "nccl:all_reduce",
            "time_created_ns": 1795242873474555698,
            "input_sizes": [[1048576]],
            "state": "scheduled" if number == 6 else "completed",
            "time_discovered_started_ns": None,
            "retired": number < 6,
            "timeout_ms": 600000,
            "is_p2p": False,
        }
        for number in range(1, entered + 1)
    ]
    return {
        "version": "2.10",
        "pg_config": {"0": {"name": "0", "desc": "default_pg", "ranks": "[0, 1]"}},
        "comm_lib_version": "2.28.9",
        "pg_status": {
            "0": {
                "last_enqueued_collective": entered,
                "last_started_collective": -1,
                "last_completed_collective": min(entered, 5),
            }
        },
        "entries": entries,
    }


async def up(attempt: Attempt, count: int) -> dict[int, int]:
    """rank -> pid, once every rank wrote a line."""
    await attempt.follow(
        lambda a: (
            a.seen("rank-started", count)
            and sum(b"up" in data for data in a.files.values()) >= count
        )
    )
    return {r["rank"]: r["pid"] for r in attempt.of("rank-started")}


async def inspect(attempt: Attempt) -> tuple[dict[int, dict[str, Any]], dict[str, bytes], Any]:
    """The ranks, the files, and the whole document."""
    reply = await attempt.channel.request("inspect", attempt.names, timeout_s=scaled(20))
    files: dict[str, bytes] = {}
    start = 0
    for listed in reply.fields["files"]:
        files[listed["name"]] = reply.payload[start : start + listed["bytes"]]
        start += listed["bytes"]
    assert start == len(reply.payload)
    document = json.loads(files["inspection.json"])
    return {found["rank"]: found for found in document["ranks"]}, files, document


@pytest.mark.processes
async def test_each_rank_is_told_apart(attempt: Attempt) -> None:
    """A stopped, a sleeping and a spinning rank, with what they wrote last and when."""
    await attempt.launch(shell(0, NAP), shell(1, SPIN), shell(2, NAP))
    pids = await up(attempt, 3)
    os.kill(pids[2], signal.SIGSTOP)
    await eventually(lambda: waits_in(pids[1]) == "running")

    began = time.monotonic()
    ranks, _, document = await inspect(attempt)

    assert_within("an inspection", time.monotonic() - began, 5)
    assert {number: found["pid"] for number, found in ranks.items()} == pids
    assert ranks[2]["state"] == "T"
    assert ranks[0]["state"] == "S"
    assert ranks[0]["waits_in"] == "clock_nanosleep"
    assert ranks[0]["cpu"] < 0.2
    assert ranks[1]["cpu"] > 0.2 / slowdown(), "others want the processor, too"
    assert all(found["lines"] == ["up"] for found in ranks.values())
    assert all(0 <= found["quiet_s"] < 30 for found in ranks.values())
    assert document["supervisor"]["state"] == "S"


@pytest.mark.processes
async def test_a_stopped_process_below_a_rank_stops_the_rank(attempt: Attempt) -> None:
    await attempt.launch(shell(0, "sleep 300 & echo $!; wait"))
    await attempt.follow(lambda a: b"\n" in a.files.get("rank-0.out", b""))
    os.kill(int(attempt.files["rank-0.out"]), signal.SIGSTOP)

    ranks, _, _ = await inspect(attempt)

    assert ranks[0]["state"] == "T"


@pytest.mark.processes
async def test_ranks_under_a_launcher_are_the_ranks_themselves(attempt: Attempt) -> None:
    """Not their shims, which always sleep."""
    await attempt.launch(launcher("bash", "-c", f"{shimmed(3, SPIN)} & wait"))
    pids = await up(attempt, 1)

    least = max(0.2 / slowdown(), 0.02)  # a shim has nothing at all
    shares = []
    while not shares or (max(shares) <= least and len(shares) < 10):
        ranks, _, _ = await inspect(attempt)
        assert ranks[3]["pid"] == pids[3]
        shares.append(ranks[3]["cpu"])

    assert max(shares) > least, "others want the processor, too, but not at every moment"


@pytest.mark.processes
async def test_ranks_that_ended_are_left_out(attempt: Attempt) -> None:
    await attempt.launch(shell(0, "exit 0"), shell(1, NAP))
    await attempt.follow(lambda a: a.seen("rank-exited") and a.seen("rank-started", 2))

    ranks, _, _ = await inspect(attempt)

    assert ranks.keys() == {1}


@pytest.mark.processes
async def test_a_process_that_vanished_unseen_is_told(attempt: Attempt) -> None:
    """Its supervisor cannot tell while it is stopped itself."""
    await attempt.launch(shell(0, NAP))
    pids = await up(attempt, 1)
    supervisor = json.loads((attempt.root / "supervisor.json").read_text())["pid"]
    os.kill(supervisor, signal.SIGSTOP)
    try:
        os.killpg(pids[0], signal.SIGKILL)
        await eventually(lambda: not exists(pids[0]))
        ranks, _, document = await inspect(attempt)
    finally:
        os.kill(supervisor, signal.SIGCONT)

    assert ranks[0]["state"] in ("", "Z")
    assert document["supervisor"]["state"] == "T"


@pytest.mark.processes
async def test_python_stacks_come_from_py_spy(attempt: Attempt, tmp_path: Path) -> None:
    """The one on the rank's PATH is asked for its process; the main thread is what counts."""
    program = tmp_path / "py-spy"
    program.write_text(f"#!/bin/bash\necho \"$@\" > {tmp_path}/asked\ncat <<'E'\n{STACKS}E\n")
    program.chmod(0o755)
    nap = "import time; print('up', flush=True); time.sleep(300)"
    path = f"{tmp_path}:{os.environ['PATH']}"
    await attempt.launch(rank(0, "python3", "-c", nap, PATH=path))
    pids = await up(attempt, 1)

    ranks, files, _ = await inspect(attempt)

    assert (tmp_path / "asked").read_text().split() == [
        *("dump", "--nonblocking", "--pid", str(pids[0]))
    ]
    assert files["rank-0.stacks.txt"].decode() == STACKS
    assert ranks[0]["stack"][0] == "all_reduce (torch/distributed/distributed_c10d.py:2806)"
    assert len(ranks[0]["stack"]) == 4


@pytest.mark.processes
@pytest.mark.parametrize("script", ["sleep 300", "echo no permission >&2; exit 1"])
async def test_a_py_spy_that_fails_costs_only_the_stacks(
    attempt: Attempt, tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs, or may not look: the rest of the evidence is there in time, and a note says why."""
    program = tmp_path / "py-spy"
    program.write_text(
        f"#!/bin/bash\nexec {script}\n" if "sleep" in script else f"#!/bin/bash\n{script}\n"
    )
    program.chmod(0o755)
    nap = "import time; print('up', flush=True); time.sleep(300)"
    await attempt.launch(rank(0, "python3", "-c", nap, PATH=f"{tmp_path}:{os.environ['PATH']}"))
    await up(attempt, 1)

    ranks, _, document = await inspect(attempt)

    assert ranks[0]["state"] == "S"
    assert ranks[0]["stack"] == []
    assert any("py-spy" in note for note in document["notes"])


@pytest.mark.processes
async def test_flight_records_are_asked_for_and_read(attempt: Attempt, tmp_path: Path) -> None:
    """The rank's pipe is written to; its record comes raw and as JSON; an old one is not used."""
    stem = str(tmp_path)
    env = {
        "TORCH_NCCL_DEBUG_INFO_PIPE_FILE": f"{stem}/pipe_",
        "TORCH_FR_DUMP_TEMP_FILE": f"{stem}/record_",
    }
    (tmp_path / "record_1").write_bytes(pickle.dumps(record(1), 2))
    data = {number: pickle.dumps(record(6 - number), 2) for number in (0, 1)}
    await attempt.launch(
        *(rank(n, sys.executable, "-c", RECORDING, data[n].hex(), **env) for n in (0, 1))
    )
    await up(attempt, 2)
    logs = [attempt.root / "logs" / f"rank-{n}.out" for n in (0, 1)]
    await eventually(lambda: all(time.time() - log.stat().st_mtime > 1 for log in logs))

    ranks, files, _ = await inspect(attempt)

    # What a rank writes because we ask is no sign of life.
    assert all(b"dumping" in log.with_suffix(".err").read_bytes() for log in logs)
    assert all(found["quiet_s"] > 1 for found in ranks.values())
    assert all(found["lines"] == ["up"] for found in ranks.values())
    common = {"group": "default_pg", "completed": 5, "operation": "all_reduce", "members": [0, 1]}
    assert ranks[0]["collectives"] == [{**common, "entered": 6}]
    assert ranks[1]["collectives"] == [{**common, "entered": 5}]
    assert files["flight_record_rank_0"] == data[0]
    assert json.loads(files["rank-1.flight.json"])["comm_lib_version"] == "2.28.9"


@pytest.mark.processes
async def test_a_pipe_that_nobody_reads_does_not_hold_us_up(
    attempt: Attempt, tmp_path: Path
) -> None:
    """A frozen rank, or one whose torch made no pipe: what lies there is taken."""
    os.mkfifo(tmp_path / "pipe_0.pipe")
    (tmp_path / "record_0").write_bytes(pickle.dumps(record(5), 2))
    env = {
        "TORCH_NCCL_DEBUG_INFO_PIPE_FILE": f"{tmp_path}/pipe_",
        "TORCH_NCCL_DEBUG_INFO_TEMP_FILE": f"{tmp_path}/record_",
    }
    await attempt.launch(shell(0, NAP, **env))
    await up(attempt, 1)
    began = time.monotonic()

    ranks, _, _ = await inspect(attempt)

    assert_within("an inspection without a record", time.monotonic() - began, 4)
    assert ranks[0]["collectives"][0]["entered"] == 5


def test_ranks_are_told_of_pipes_only_where_pipes_can_be(tmp_path: Path) -> None:
    """torch would end them otherwise; a pipe of the user's own choice is the user's."""
    for root in (tmp_path, tmp_path / "missing"):
        own, theirs = ({PIPE: f"{place}/pipe_"} for place in (root, "/elsewhere"))
        keep_usable_pipes([{"env": own}, {"env": theirs}, {"env": {}}], str(root))
        assert (PIPE in own) == root.exists()
        assert PIPE in theirs
    assert list(tmp_path.iterdir()) == []


@pytest.mark.processes
async def test_nccl_is_asked_for_its_own_view(attempt: Attempt) -> None:
    """Where the ranks were told that it listens; only this node's processes are believed."""
    asked: list[bytes] = []
    told = ""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(told.encode())
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await attempt.launch(shell(1, NAP, NCCL_RAS_ADDR=f"127.0.0.1:{port}"))
        pids = await up(attempt, 1)
        told = RAS.replace("PID", str(pids[1]))
        ranks, files, _ = await inspect(attempt)

    assert asked == [b"verbose status\n"]
    assert files["nccl-ras.txt"].decode() == told
    (place,) = ranks[1]["collectives"]
    assert (place["entered"], place["operation"]) == (5, "AllReduce")


@pytest.mark.processes
async def test_an_attempt_that_never_was_is_refused(attempt: Attempt) -> None:
    with pytest.raises(AgentError) as refused:
        await inspect(attempt)
    assert refused.value.id == "OR-AGENT-ABSENT"


@pytest.mark.processes
async def test_several_inspections_at_once_are_all_answered(make_attempt: MakeAttempt) -> None:
    attempt = await make_attempt()
    await attempt.launch(*(shell(number, NAP) for number in range(6)))
    await up(attempt, 6)

    answers = await asyncio.gather(*(inspect(attempt) for _ in range(3)))

    assert all(ranks.keys() == set(range(6)) for ranks, _, _ in answers)


# ---- records are never executed ----------------------------------------------------------------

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.text() | st.floats(width=32),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), plain), st.integers(2, 5))
def test_plain_records_are_read_as_pickle_reads_them(given: dict[str, Any], protocol: int) -> None:
    data = pickle.dumps(given, protocol)
    assert repr(flight.load_record(data)) == repr(pickle.loads(data))


class Evil:
    """What a hostile record would do if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (3,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_record_that_names_a_function_is_refused(protocol: int) -> None:
    with pytest.raises(ValueError, match="not a flight record"):
        flight.load_record(pickle.dumps({"entries": Evil()}, protocol))


@given(st.binary(max_size=400))
def test_garbage_is_refused_as_what_it_is(data: bytes) -> None:
    """Whatever the bytes are: plain data, or a ValueError."""
    with suppress(ValueError):
        assert isinstance(flight.load_record(data), dict)


def test_a_record_that_refers_to_itself_many_times_is_not_written_out() -> None:
    """Thirty doublings fit into a hundred bytes of pickle, and into a billion of JSON."""
    nested: list[Any] = []
    for _ in range(30):
        nested = [nested, nested]
    loaded = flight.load_record(pickle.dumps({"entries": nested}, 2))
    began = time.monotonic()
    assert flight.as_json(loaded) is None
    assert_within("the refusal of a record", time.monotonic() - began, 10)


def test_the_main_thread_is_found_by_name_or_by_number() -> None:
    unnamed = STACKS.replace(': "MainThread"', "").replace(': "pt_autograd_0"', "")
    assert stacks.main_thread(STACKS, 1)[0].startswith("all_reduce")
    assert stacks.main_thread(unnamed, 4711)[0].startswith("all_reduce")
    assert stacks.main_thread("Error: no such process", 4711) == []
