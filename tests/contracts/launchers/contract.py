"""What every launcher promises, tried on real processes under real supervisors.

A launcher's own test module inherits :class:`LauncherContract`, and what else it promises.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.contracts.agent.attempts import Attempt, running
from tests.contracts.agent.conftest import MakeAttempt, OpenChannel
from tests.contracts.launchers.worlds import RANK, World, own_oom_score, shares, start

# Quotes, blanks, line ends, an empty word, words that look like options and like placeholders.
AWKWARD = ["--lr", "1e-4", "a b", "", "it's", '"q"', "$HOME", "a\nb", "--", "ü", "\\", "*", "k=v,w"]

Begin = Callable[..., Any]


class Launched:
    """``meets``: its ranks find each other. ``process``: it has a process of its own on each node.
    ``up_s``: how long ranks may take to be there. ``how``: what else a share of it has.
    """

    launcher: ClassVar[str]
    meets: ClassVar[bool] = False
    process: ClassVar[bool] = False
    up_s: ClassVar[float] = 30.0

    @property
    def how(self) -> dict[str, Any]:
        return {}

    @pytest.fixture
    def begin(self, make_attempt: MakeAttempt, open_channel: OpenChannel, tmp_path: Path) -> Begin:
        """Start ranks in ``mode``; ``layout`` says how many each node has."""

        async def begin(mode: str, layout: tuple[int, ...], **how: Any) -> World:
            script = tmp_path / "rank.py"
            script.write_text(RANK)
            fields = how.pop("fields", {})
            launcher = how.pop("launcher", self.launcher)
            how = {**self.how, **how}
            of = shares(script, [mode, *how.pop("words", [])], layout, **how)
            return await start(make_attempt, open_channel, launcher, of, **fields)

        return begin

    def saved(self, attempt: Attempt, rank: int) -> None:
        """It was asked once to end, had its time, and its children were left to it meanwhile."""
        words = list(map(bytes, attempt.files[f"rank-{rank}.out"].splitlines()[1:]))
        assert words == [b"asked to end", b"saved beside my child"]
        ended = attempt.only("rank-exited", rank=rank)
        assert (ended["outcome"], ended["by_us"]) == ({"exited": 5}, True)

    def nothing_is_left(self, world: World) -> None:
        """No process of the run and no file outside of the attempt's own directory."""
        for attempt in world.attempts:
            assert running(attempt.names["run"]) == []
            assert attempt.only("concluded")["clean"] is True
            assert not world.scratch(attempt).exists()


class OnceEach(Launched):
    """Each rank runs once, with what torchrun would tell it."""

    async def test_each_rank_runs_once_as_under_torchrun(self, begin: Begin) -> None:
        """On two nodes: numbers, arguments byte for byte, own log files, endings, nothing left."""
        world = await begin("go", (2, 1), words=AWKWARD)
        ends = await asyncio.gather(*(a.to_end(2 * self.up_s) for a in world.attempts))

        for share, end in zip(world.shares, ends, strict=True):
            good = {f"rank-{rank}": {"exited": 0} for rank in share.ranks}
            assert end["outcomes"] == good | ({"launcher": {"exited": 0}} if self.process else {})
        told = world.told()
        assert [told[rank]["argv"] for rank in range(3)] == [AWKWARD] * 3
        places = {0: (0, 2, 0, "n1"), 1: (1, 2, 0, "n1"), 2: (0, 1, 1, "n2")}
        for rank, (local, of_node, group, node) in places.items():
            env = told[rank]["env"]
            assert (env["RANK"], env["WORLD_SIZE"]) == (str(rank), "3")
            assert (env["LOCAL_RANK"], env["LOCAL_WORLD_SIZE"]) == (str(local), str(of_node))
            assert (env["GROUP_RANK"], env["GROUP_WORLD_SIZE"]) == (str(group), "2")
            assert env["ORCHESTRATE_NODE"] == node
            assert env["ORCHESTRATE_ATTEMPT_DIR"] == str(world.attempts[group].root)
            assert env["MARK"] == "of the plan"
            assert env["RAY_AUTH_TOKEN"] is None
            assert told[rank]["nice"] == os.nice(0)
            assert told[rank]["oom"] == own_oom_score()
        meetings = {(t["env"]["MASTER_ADDR"], t["env"]["MASTER_PORT"]) for t in told.values()}
        assert len(meetings) == 1
        assert (None not in next(iter(meetings))) is self.meets
        for attempt, share in zip(world.attempts, world.shares, strict=True):
            for rank in share.ranks:
                assert attempt.files[f"rank-{rank}.err"] == b"err %d\n" % rank
                assert len(attempt.of("rank-started", rank=rank)) == 1
                assert attempt.only("rank-exited", rank=rank)["by_us"] is False
        self.nothing_is_left(world)


class Endings(Launched):
    """The first failure ends the rest, a stop leaves its grace, and all of it is recorded."""

    async def test_the_first_failure_ends_the_rest(self, begin: Begin) -> None:
        """It is recorded as it was, and the endings that it led to as ours."""
        world = await begin("fail", (2,))
        (attempt,) = world.attempts
        await world.follow_until_up(self.up_s)
        (attempt.root / "go").touch()
        end = await attempt.to_end(self.up_s)

        first = attempt.only("rank-exited", rank=1)
        assert (first["outcome"], first["by_us"]) == ({"exited": 3}, False)
        assert first["last_line"] == "err 1"
        other = attempt.only("rank-exited", rank=0)
        assert (other["outcome"], other["by_us"]) == ({"signalled": signal.SIGTERM}, True)
        assert end["why"] == "first-failure"
        self.nothing_is_left(world)

    async def test_a_killed_rank_is_recorded_as_killed(self, begin: Begin) -> None:
        world = await begin("stay", (2,))
        (attempt,) = world.attempts
        await world.follow_until_up(self.up_s)
        os.kill(attempt.only("rank-started", rank=0)["pid"], signal.SIGKILL)
        await attempt.to_end(self.up_s)

        killed = attempt.only("rank-exited", rank=0)
        assert (killed["outcome"], killed["by_us"]) == ({"signalled": signal.SIGKILL}, False)
        assert attempt.only("rank-exited", rank=1)["by_us"] is True
        self.nothing_is_left(world)

    async def test_a_stop_gives_ranks_their_grace(self, begin: Begin) -> None:
        """Each is asked just once, and what it does then is waited for."""
        world = await begin("save", (2,))
        (attempt,) = world.attempts
        await world.follow_until_up(self.up_s)
        await attempt.ask("stop", grace_s=30.0)
        end = await attempt.to_end(self.up_s)

        for rank in range(2):
            self.saved(attempt, rank)
        assert end["clean"] is True
        self.nothing_is_left(world)

    async def test_ranks_that_one_failed_beside_are_asked_once(self, begin: Begin) -> None:
        """Whoever of launcher and supervisor is first: many programs leave when asked again."""
        world = await begin("save-one-fails", (3,))
        (attempt,) = world.attempts
        await world.follow_until_up(self.up_s)
        (attempt.root / "go").touch()
        await attempt.to_end(self.up_s)

        assert attempt.only("rank-exited", rank=1)["outcome"] == {"exited": 3}
        for rank in (0, 2):
            self.saved(attempt, rank)
        self.nothing_is_left(world)


class LauncherContract(OnceEach, Endings):
    """What every launcher promises."""


class IndependentRanks(Launched):
    """Of a launcher that starts ranks which do not need each other."""

    async def test_independent_ranks_go_on_without_one(self, begin: Begin) -> None:
        """Where samples are leased, the loss of one worker must not cost the others' work."""
        world = await begin("apart", (2,), apart=True, fields={"independent": True})
        (attempt,) = world.attempts
        end = await attempt.to_end(self.up_s)

        assert end["outcomes"]["rank-1"] == {"exited": 3}
        assert end["outcomes"]["rank-0"] == {"exited": 0}
        assert attempt.files["rank-0.out"].splitlines()[-1] == b"went on"
        env = world.told()[0]["env"]
        assert (env["WORLD_SIZE"], env["MASTER_ADDR"]) == ("2", None)
        self.nothing_is_left(world)


class LauncherProcess(Launched):
    """Of a launcher that has a process of its own on each node."""

    process = True

    async def test_a_killed_launcher_leaves_nothing(self, begin: Begin) -> None:
        world = await begin("stay", (2,))
        (attempt,) = world.attempts
        await world.follow_until_up(self.up_s)
        os.kill(attempt.only("process-started")["pid"], signal.SIGKILL)
        end = await attempt.to_end(self.up_s)

        assert attempt.only("process-exited")["outcome"] == {"signalled": signal.SIGKILL}
        assert {r["by_us"] for r in attempt.of("rank-exited")} == {True}
        assert end["clean"] is True
        self.nothing_is_left(world)

    async def test_ranks_of_a_killed_launcher_keep_their_grace(self, begin: Begin) -> None:
        world = await begin("save", (2,))
        (attempt,) = world.attempts
        await world.follow_until_up(self.up_s)
        os.kill(attempt.only("process-started")["pid"], signal.SIGKILL)
        await attempt.to_end(self.up_s)

        for rank in range(2):
            self.saved(attempt, rank)
        self.nothing_is_left(world)
