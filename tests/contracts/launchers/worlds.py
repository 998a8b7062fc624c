"""A world of ranks as a launcher makes it, on this machine's supervisors instead of a cluster's."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.core.base.command import reveal_secret
from orchestrator.core.launchers import LAUNCHERS, LaunchSpec
from orchestrator.node_agent.base.node_layout import AttemptLayout
from tests.contracts.agent.attempts import Attempt
from tests.contracts.agent.conftest import MakeAttempt, OpenChannel

# What every rank of these tests does: it tells what it was given, then does as the mode says.
RANK = """
import json, os, signal, subprocess, sys, time
names = "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE GROUP_RANK GROUP_WORLD_SIZE".split()
names += ["MASTER_ADDR", "MASTER_PORT", "ORCHESTRATE_NODE", "ORCHESTRATE_ATTEMPT_DIR", "MARK"]
names += ["RAY_AUTH_TOKEN"]
told = {"argv": sys.argv[2:], "env": {n: os.environ.get(n) for n in names}, "nice": os.nice(0)}
told["torchrun"] = {n: v for n, v in os.environ.items() if n.startswith(("ROLE_", "TORCH"))}
told["oom"] = int(open("/proc/self/oom_score_adj").read())
mode, rank = sys.argv[1], int(os.environ["RANK"])
def save(*_):
    os.write(1, b"asked to end\\n")  # in one piece, for the next signal may be here already
    time.sleep(1.5)
    os.write(1, b"saved beside my child\\n" if child.poll() is None else b"my child is gone\\n")
    child.kill()
    sys.exit(5)
if mode in ("save", "save-one-fails"):
    child = subprocess.Popen(["sleep", "300"])
    signal.signal(signal.SIGTERM, save)
print(json.dumps(told), flush=True)
print(f"err {rank}", file=sys.stderr, flush=True)
if mode in ("fail", "save-one-fails") and rank == 1:
    while not os.path.exists(os.path.join(os.environ["ORCHESTRATE_ATTEMPT_DIR"], "go")):
        time.sleep(0.02)
    sys.exit(3)
if mode in ("fail", "save", "save-one-fails", "stay"):
    time.sleep(300)
if mode == "apart" and rank == 1:
    sys.exit(3)
if mode == "apart":
    time.sleep(1)
    print("went on", flush=True)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The attempts of the world's nodes, and the share that each was launched with."""

    attempts: tuple[Attempt, ...]
    shares: tuple[LaunchSpec, ...]

    async def follow_until_up(self, within_s: float) -> None:
        """Until every rank has told what it was given, and is recorded, which may come later."""
        for attempt, share in zip(self.attempts, self.shares, strict=True):
            await attempt.follow(
                lambda a, ranks=share.ranks: all(
                    f"rank-{rank}.err" in a.files and a.seen("rank-started", rank=rank)
                    for rank in ranks
                ),
                within_s,
            )

    def told(self) -> dict[int, dict[str, Any]]:
        """What each rank wrote first."""
        found = {}
        for attempt, share in zip(self.attempts, self.shares, strict=True):
            for rank in share.ranks:
                first = attempt.files[f"rank-{rank}.out"].splitlines()[0]
                found[rank] = json.loads(first)
        return found

    def scratch(self, attempt: Attempt) -> Path:
        """What an attempt may have outside of its directory while it runs."""
        return Path(AttemptLayout(str(attempt.root)).scratch)


def own_oom_score() -> int:
    """What this process adds to its claim to be killed first."""
    return int(Path("/proc/self/oom_score_adj").read_text())


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def shares(
    script: Path, arguments: Sequence[str], layout: Sequence[int], **more: Any
) -> tuple[LaunchSpec, ...]:
    """One for each node; ``layout``: how many ranks each has."""
    names = tuple(f"n{index + 1}" for index in range(len(layout)))
    base = LaunchSpec(
        node="",
        node_rank=0,
        names=names,
        ranks=(),
        world_size=sum(layout),
        interpreter=sys.executable,
        command=(sys.executable, "-u", str(script), *arguments),
        master_addr="127.0.0.1",
        master_port=str(free_port()),
        gpus=((),) * len(layout),
        token="only-in-this-test",
        **{"addresses": ((),) * len(layout), **more},
    )
    firsts = [sum(layout[:index]) for index in range(len(layout))]
    return tuple(
        replace(base, node=name, node_rank=index, ranks=tuple(range(first, first + layout[index])))
        for index, (name, first) in enumerate(zip(names, firsts, strict=True))
    )


async def start(
    make_attempt: MakeAttempt,
    open_channel: OpenChannel,
    launcher: str,
    of: Sequence[LaunchSpec],
    **fields: Any,
) -> World:
    """Launch each node's processes, as the coordinator does."""
    run = None
    attempts = []
    for share in of:
        attempt = await make_attempt(share.node, watched=False)
        attempt.channel = await open_channel()  # each of them tells its own events
        if run is not None:  # all nodes are of one run
            attempt.names["run"] = run
            attempt.root = attempt.root.parents[2] / run / share.node / "attempt-1"
        run = attempt.names["run"]
        processes = [
            {
                "label": process.label,
                "rank": process.rank,
                "argv": list(process.argv),
                "env": {
                    "MARK": "of the plan",
                    **{v.name: reveal_secret(v.value) for v in process.env},
                },
            }
            for process in LAUNCHERS[launcher].processes(share)
        ]
        await attempt.launch(*processes, **fields)
        await attempt.watch()
        attempts.append(attempt)
    return World(attempts=tuple(attempts), shares=tuple(of))
