"""What the supervisor promises: exact endings, the first failure ends the rest, nothing is left."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from orchestrator.adapters.agent_client.channel import ChannelLost
from tests.contracts.agent.attempts import (
    Attempt,
    command_lines,
    eventually,
    exists,
    launcher,
    rank,
    running,
    shell,
    shimmed,
)
from tests.contracts.agent.conftest import MakeAttempt, OpenChannel
from tests.time_limits import assert_within

pytestmark = pytest.mark.processes

NAP_S = 300
FOREVER = "while :; do sleep 0.05; done"


async def test_a_run_that_works_concludes_clean(attempt: Attempt) -> None:
    """Start, end, logs byte for byte, two empty scans, and the places that the ranks were told."""
    script = 'printf "%s\\n" "$ORCHESTRATE_OUTPUT_DIR" {output}; echo warn >&2'
    await attempt.launch(shell(0, script), shell(1, "exit 0"))

    concluded = await attempt.to_end()

    place = str(attempt.root / "output")
    assert attempt.files["rank-0.out"] == f"{place}\n{place}\n".encode()
    assert attempt.files["rank-0.err"] == b"warn\n"
    assert concluded["clean"] is True
    assert concluded["scans"] >= 2
    assert concluded["why"] == "finished"
    assert concluded["outcomes"] == {"rank-0": {"exited": 0}, "rank-1": {"exited": 0}}
    assert [r["seq"] for r in attempt.records] == list(range(len(attempt.records)))


async def test_ranks_find_the_facts_of_their_node_in_a_file(attempt: Attempt) -> None:
    """For the user alone; a node of which nothing is known names no file."""
    facts = {"node": "n1", "gpus": [{"uuid": "GPU-1"}], "driver": "é"}
    await attempt.launch(shell(0, 'cat "$ORCHESTRATE_FACTS"'), facts=facts)
    await attempt.to_end()

    assert json.loads(attempt.files["rank-0.out"]) == facts
    assert (attempt.root / "facts.json").stat().st_mode & 0o777 == 0o600


async def test_ranks_of_a_node_without_facts_are_given_none(attempt: Attempt) -> None:
    await attempt.launch(shell(0, 'echo "${ORCHESTRATE_FACTS-none}"'), facts=None)
    await attempt.to_end()

    assert attempt.files["rank-0.out"] == b"none\n"
    assert not (attempt.root / "facts.json").exists()


async def test_a_killed_rank_is_named_at_once(attempt: Attempt) -> None:
    """SIGKILL of one rank: recorded as such with its last words; the others are ended by us."""
    loud = f"echo step 7 >&2; {FOREVER}"
    await attempt.launch(*(shell(number, loud) for number in range(3)))
    await attempt.follow(lambda a: len(a.files.get("rank-1.err", b"")) > 0)
    victim = attempt.only("rank-started", rank=1)["pid"]

    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    await attempt.follow(lambda a: a.seen("rank-exited", rank=1))
    took_s = time.monotonic() - began
    concluded = await attempt.to_end()

    ending = attempt.only("rank-exited", rank=1)
    assert_within("the exit of a killed rank", took_s, 1)
    assert ending["outcome"] == {"signalled": signal.SIGKILL}
    assert ending["last_line"] == "step 7"
    assert ending["by_us"] is False
    assert attempt.only("stopping")["why"] == "first-failure"
    assert all(r["by_us"] for r in attempt.of("rank-exited") if r["rank"] != 1)
    assert concluded["clean"]
    assert running(attempt.names["run"]) == []


@pytest.mark.parametrize(
    "script,outcome",
    [
        ("exit 3", {"exited": 3}),
        ("kill -SEGV $$", {"signalled": 11}),
        ("kill -ABRT $$", {"signalled": 6}),
        ("kill -TERM $$", {"signalled": 15}),
        ("exit 137", {"exited": 137}),
    ],
)
@pytest.mark.parametrize("under_shim", [False, True])
async def test_endings_are_exact(
    attempt: Attempt, script: str, outcome: dict[str, int], under_shim: bool
) -> None:
    """A code is a code and a signal is a signal, with a launcher between us and the rank or not."""
    if under_shim:
        await attempt.launch(launcher("bash", "-c", shimmed(0, script) + "; exit $?"))
    else:
        await attempt.launch(shell(0, script))

    await attempt.to_end()

    ending = attempt.only("rank-exited", rank=0)
    assert ending["outcome"] == outcome
    assert ending["by_us"] is False


async def test_a_program_that_cannot_start_says_so(attempt: Attempt) -> None:
    """127 as a shell reports it, with the reason as its last line."""
    await attempt.launch(rank(0, "/no/such/program", "--flag"))

    await attempt.to_end()

    ending = attempt.only("rank-exited")
    assert ending["outcome"] == {"exited": 127}
    assert "/no/such/program" in ending["last_line"]


async def test_a_stubborn_rank_is_killed_after_its_grace(attempt: Attempt) -> None:
    """TERM first, KILL when the grace is over."""
    await attempt.launch(shell(0, f"trap 'echo caught' TERM; echo up; {FOREVER}"))
    await attempt.follow(lambda a: b"up\n" in a.files.get("rank-0.out", b""))

    began = time.monotonic()
    await attempt.ask("stop", grace_s=0.5)
    concluded = await attempt.to_end()

    took_s = time.monotonic() - began
    assert took_s > 0.4
    assert_within("the end of a stubborn rank", took_s, 5)
    assert b"caught" in attempt.files["rank-0.out"]
    assert attempt.only("rank-exited")["outcome"] == {"signalled": 9}
    assert attempt.only("rank-exited")["by_us"] is True
    assert concluded["why"] == "asked"


async def test_a_second_stop_may_hurry(attempt: Attempt) -> None:
    """A long grace is cut short by a stop without one."""
    await attempt.launch(shell(0, f"trap '' TERM; echo up; {FOREVER}"))
    await attempt.follow(lambda a: b"up\n" in a.files.get("rank-0.out", b""))
    await attempt.ask("stop", grace_s=60.0)
    await attempt.follow(lambda a: a.seen("stopping"))

    await attempt.ask("stop", grace_s=0.0)

    assert (await attempt.to_end(5))["clean"]


async def test_a_stop_that_cannot_be_written_is_a_signal(attempt: Attempt) -> None:
    """A disk that became read-only keeps nobody from ending what runs there."""
    await attempt.launch(shell(0, f"trap 'echo caught; exit 3' TERM; echo up; {FOREVER}"))
    await attempt.follow(lambda a: b"up\n" in a.files.get("rank-0.out", b""))
    (attempt.root / "stop").unlink()
    (attempt.root / "stop").mkdir()

    await attempt.ask("stop", grace_s=0.5)

    assert (await attempt.to_end())["why"] == "terminated"
    assert b"caught" in attempt.files["rank-0.out"]


async def test_those_who_escape_are_found(attempt: Attempt) -> None:
    """setsid, nohup, a double fork, and one that drops the marker from its environment."""
    escapes = [
        f"setsid bash -c '{FOREVER}' &",
        f"nohup bash -c '{FOREVER}' > /dev/null 2>&1 &",
        f"(setsid bash -c '{FOREVER}' & ) &",
        "setsid env -i /bin/bash -c 'exec -a unmarked sleep 300' & echo $! > {output}/pid",
    ]
    await attempt.launch(shell(0, "\n".join(escapes) + "\nsleep 0.2; exit 0"), grace_s=0.5)

    concluded = await attempt.to_end()

    assert concluded["clean"] is True
    assert running(attempt.names["run"]) == []
    assert not exists(int((attempt.root / "output" / "pid").read_text()))


async def test_a_neighbour_is_left_alone(make_attempt: MakeAttempt) -> None:
    """Another run, and another inventory node of the same run, keep their processes."""
    mine, other, twin = [await make_attempt(watched=n == 0) for n in range(3)]
    twin.names.update(run=mine.names["run"], node="n2")
    for attempt in (mine, other, twin):
        await attempt.launch(shell(0, f"exec sleep {NAP_S}"))
    await mine.follow(lambda a: a.seen("rank-started"))
    rank_pid = mine.only("rank-started")["pid"]
    await eventually(lambda: len(running(mine.names["run"])) == 2)
    await eventually(lambda: len(running(other.names["run"])) == 1)
    neighbours = {*running(mine.names["run"]), *running(other.names["run"])} - {rank_pid}

    await mine.ask("stop", grace_s=0.0)
    await mine.to_end()
    swept = await mine.ask("sweep")

    assert (swept["scans"], swept["killed"], swept["clean"]) == (2, [], True)
    assert {*running(mine.names["run"]), *running(other.names["run"])} == neighbours


async def test_sweep_ends_a_run_whose_supervisor_was_killed(attempt: Attempt) -> None:
    """KILL of the supervisor takes its ranks along; the watch says that nobody concluded."""
    reply = await attempt.launch(shell(0, f"setsid bash -c '{FOREVER}' & {FOREVER}"))
    await attempt.follow(lambda a: a.seen("rank-started"))
    rank_pid = attempt.only("rank-started")["pid"]
    await eventually(lambda: len(running(attempt.names["run"])) >= 2)

    os.kill(reply.fields["supervisor"]["pid"], signal.SIGKILL)
    await attempt.follow(lambda a: a.last_event == "supervisor-lost", within_s=5)
    swept = await attempt.ask("sweep")

    assert not exists(rank_pid)
    assert swept["clean"] is True
    assert running(attempt.names["run"]) == []


async def test_launch_happens_once(attempt: Attempt) -> None:
    """A repeat finds the supervisor that is there, while it runs and after it has concluded."""
    first = await attempt.launch(shell(0, "echo once; exec sleep 0.3"))
    again = await attempt.launch(shell(0, "echo twice"))
    await attempt.to_end()
    after = await attempt.launch(shell(0, "echo thrice"))

    assert first.fields["already"] is False
    assert again.fields["already"] is after.fields["already"] is True
    assert again.fields["supervisor"] == first.fields["supervisor"]
    assert attempt.files["rank-0.out"] == b"once\n"


async def test_an_agent_that_dies_while_it_launches_leaves_a_supervisor(
    attempt: Attempt, open_channel: OpenChannel
) -> None:
    """Nobody takes the supervisor's answer: its ranks go on, and the next agent finds them."""
    agent = attempt.channel.hello.pid
    killer = shell(0, f"kill -KILL {agent}; echo killed")
    others = [shell(number, f"sleep 0.5; echo {number}") for number in range(1, 30)]
    with pytest.raises(ChannelLost):
        await attempt.launch(killer, *others)

    await attempt.watch(await open_channel())
    concluded = await attempt.to_end()

    assert (concluded["clean"], concluded["why"]) == (True, "finished")
    assert attempt.files["rank-0.out"] == b"killed\n"
    assert attempt.files["rank-29.out"] == b"29\n"


async def test_secrets_and_braces_arrive_exactly(attempt: Attempt) -> None:
    """Values reach the process byte for byte, and none of them is on disk or in an argv of ours."""
    awkward = "a'b\"c $HOME `id` {not} {{output}} \n é"
    await attempt.launch(
        shell(0, 'printf "%s" "$VALUE"; sleep 0.3', VALUE=awkward, TOKEN="canary7")
    )
    await attempt.follow(lambda a: a.seen("rank-started"))
    argvs = command_lines()

    await attempt.to_end()

    expected = awkward.replace("{output}", str(attempt.root / "output"))
    assert attempt.files["rank-0.out"] == expected.encode()
    assert not any(b"canary7" in argv for argv in argvs)
    files = [p for p in attempt.root.rglob("*") if p.is_file()]
    assert not any(b"canary7" in path.read_bytes() for path in files)
