"""GPUs count as given back when nothing of the run is on them any more, and not before."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest

from orchestrator.adapters.agent_client.channel import AgentChannel
from orchestrator.node_agent.attempt import gpu_release as drain
from orchestrator.node_agent.attempt.gpu_release import await_release, parse_usage
from orchestrator.node_agent.base.node_layout import RunLayout
from tests.contracts.agent.attempts import Attempt, eventually, shell
from tests.contracts.agent.conftest import MakeAttempt, OpenChannel
from tests.time_limits import assert_within

pytestmark = pytest.mark.processes

MIB = 1024 * 1024
WAITING = "exec sleep 300"
NOBODY = 2**22 + 7  # above the kernel's largest pid


class Driver:
    """An nvidia-smi whose answers are files; one that is slow waits until it may go on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._gpus, self._apps, self._asked = (folder / n for n in ("gpus", "apps", "asked"))
        script = f"""#!/bin/sh
echo "$1" >> {self._asked}
while [ -e {folder}/slow ]; do sleep 0.05; done
[ -e {folder}/broken ] && exit 9
case $1 in --query-gpu*) cat {self._gpus};; *) cat {self._apps};; esac
"""
        (folder / "nvidia-smi").write_text(script)
        (folder / "nvidia-smi").chmod(0o755)
        self.says([0, 0])

    def says(self, used_mib: list[int], *contexts: tuple[int, int, object]) -> None:
        """``contexts``: (GPU, pid, MiB)."""
        gpus = [f"{index}, GPU-{index}, {used}" for index, used in enumerate(used_mib)]
        apps = [f"GPU-{gpu}, {pid}, {size}" for gpu, pid, size in contexts]
        for path, lines in ((self._apps, apps), (self._gpus, gpus)):
            new = path.with_suffix(".new")
            new.write_text("".join(line + "\n" for line in lines))
            new.rename(path)

    def set(self, name: str, on: bool) -> None:
        """``slow`` or ``broken``."""
        (self.folder / name).touch() if on else (self.folder / name).unlink()

    @property
    def questions(self) -> int:
        return len(self._asked.read_text().splitlines()) if self._asked.exists() else 0


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return Driver(folder)


@pytest.fixture
async def channel(driver: Driver, open_channel: OpenChannel) -> AgentChannel:
    """To an agent that has this driver."""
    return await open_channel()


async def test_a_launch_notes_what_was_there(attempt: Attempt, driver: Driver) -> None:
    """Memory and contexts of the GPUs that it was given; a driver that wakes up delays nothing."""
    driver.says([4, 300, 9], (1, 4242, 290), (2, 7, 1))
    driver.set("slow", True)
    await attempt.launch(shell(0, WAITING), gpus=[0, 1])
    await attempt.follow(lambda a: a.seen("rank-started"))
    driver.set("slow", False)

    noted = attempt.root / "gpus.json"
    await eventually(noted.exists)

    assert json.loads(noted.read_text()) == [
        {"index": 0, "used_bytes": 4 * MIB, "pids": []},
        {"index": 1, "used_bytes": 300 * MIB, "pids": [4242]},
    ]


async def test_a_sweep_waits_until_the_memory_is_back(attempt: Attempt, driver: Driver) -> None:
    """First a context of a dead rank, then memory without an owner, then neither."""
    await attempt.launch(shell(0, WAITING), gpus=[1])
    await eventually((attempt.root / "gpus.json").exists)
    await attempt.follow(lambda a: a.seen("rank-started"))
    rank = attempt.only("rank-started")["pid"]
    driver.says([0, 9000], (1, rank, 8990))
    before = driver.questions
    sweep = asyncio.create_task(attempt.ask("sweep", gpus=[1]))

    await eventually(lambda: driver.questions >= before + 3)
    driver.says([0, 9000])
    before = driver.questions
    await eventually(lambda: driver.questions >= before + 3)
    assert not sweep.done()
    driver.says([0, 100])

    answer = await sweep
    assert (answer["clean"], answer["gpu_drained"]) == (True, True)


async def test_without_gpus_there_is_nothing_to_drain(attempt: Attempt, driver: Driver) -> None:
    await attempt.launch(shell(0, WAITING))

    answer = await attempt.ask("sweep", gpus=[])

    assert answer["gpu_drained"] is None
    assert driver.questions == 0


async def test_memory_of_the_living_is_their_own(make_attempt: MakeAttempt, driver: Driver) -> None:
    """Somebody else's process began on the GPU meanwhile: ours is given back all the same."""
    attempt = await make_attempt(watched=False)
    await attempt.launch(shell(0, WAITING), gpus=[0])
    await eventually((attempt.root / "gpus.json").exists)
    driver.says([5000, 0], (0, os.getpid(), 4900))

    assert (await attempt.ask("sweep", gpus=[0]))["gpu_drained"] is True


# ---- one question at a time --------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    """A share with one attempt, of whose ranks ``NOBODY`` was one."""
    run = RunLayout(str(tmp_path / "r"), str(tmp_path / "r" / "n1"))
    folder = Path(run.attempt(1).root)
    folder.mkdir(parents=True)
    record = {"event": "rank-started", "rank": 0, "pid": NOBODY, "start_time": 1}
    (folder / "events.jsonl").write_text(json.dumps(record) + '\n[1]\n{"event":"to')
    return run


def note(run: RunLayout, text: str) -> None:
    Path(run.attempt(1).gpus).write_text(text)


BASELINE = json.dumps([{"index": 0, "used_bytes": 1000 * MIB, "pids": [NOBODY + 1]}])


@pytest.mark.parametrize(
    "now,baseline,expected",
    [
        ((0, []), "", True),
        ((256, []), "", True),
        ((257, []), "", False),
        ((1256, []), BASELINE, True),
        ((1257, []), BASELINE, False),
        ((0, [(0, NOBODY, 0)]), BASELINE, False),  # ours, dead, still listed
        ((0, [(0, NOBODY + 2, 0)]), BASELINE, True),  # unknown, but it holds nothing
        ((3000, [(0, NOBODY + 2, 3000)]), BASELINE, False),  # nobody whom we see holds it
        ((3000, [(0, NOBODY + 1, 3000)]), BASELINE, True),  # it was there before, and has grown
        ((3000, [(0, 1, 2900)]), BASELINE, True),  # a living stranger
        ((3000, [(0, 1, "[N/A]")]), BASELINE, False),
        ((3000, [(0, 1, 2900)]), "{torn", True),
        ((1100, []), '[{"index": 0}]', False),
        (("[N/A]", []), "", True),
    ],
)
def test_what_counts_as_given_back(
    run: RunLayout,
    driver: Driver,
    now: tuple[int, list[tuple[int, int, object]]],
    baseline: str,
    expected: bool,
) -> None:
    """``now``: MiB in use on the GPU, and its contexts."""
    if baseline:
        note(run, baseline)
    driver.says([now[0]], *now[1])

    assert await_release(run, [0], [], 0.0) is expected


def test_those_killed_by_the_sweep_are_ours(run: RunLayout, driver: Driver) -> None:
    driver.says([0], (0, NOBODY + 5, 0))

    assert await_release(run, [0], [NOBODY + 5], 0.0) is False
    assert await_release(run, [0], [], 0.0) is True


def test_what_cannot_be_verified_is_no(run: RunLayout, driver: Driver) -> None:
    """A GPU that is not listed, or a driver that fails; and it does not take for ever."""
    driver.says([0])
    assert await_release(run, [0, 1], [], 0.0) is False

    driver.set("broken", True)
    began = time.monotonic()
    assert await_release(run, [0], [], 0.6) is False
    took_s = time.monotonic() - began
    assert took_s >= 0.6
    assert_within("a broken driver", took_s, 3)


def test_a_driver_that_hangs_is_left(run: RunLayout, driver: Driver) -> None:
    driver.set("slow", True)
    began = time.monotonic()

    assert await_release(run, [0], [], 0.2) is False

    assert_within("a driver that hangs", time.monotonic() - began, 6)
    driver.set("slow", False)


def test_without_the_tool_nobody_knows(run: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "find_program", lambda: None)

    assert await_release(run, [0], [], 0.0) is None


def test_odd_lines_are_passed_over() -> None:
    usage = parse_usage(
        "Warning: something\n0, GPU-a, 5\nx, GPU-b, 5\n1, GPU-c\n",
        "GPU-a, 12, 3\nGPU-z, 13, 3\nGPU-a, -, 3\nNo running processes found\n",
    )

    assert usage.used == {0: 5 * MIB}
    assert usage.contexts == {0: {12: 3 * MIB}}
