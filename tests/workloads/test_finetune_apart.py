"""Two nodes that train by themselves: the real script on both, the real averaging between them."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.core.events import Event, RoundClosed
from orchestrator.engine.averaging import average
from orchestrator.engine.context import RunContext
from tests.engine.test_averaging import Bench, Noting, Street
from tests.workloads.conftest import DEADLINE_S, FINETUNE, QUICK, NodeFolder, node_folder, succeed

SCRIPT = FINETUNE / "train.py"
STEPS, EVERY, ROWS = 12, 4, 4
pytestmark = pytest.mark.timeout(2 * DEADLINE_S)


class Folders(Street):
    """The exchange of processes on this machine: what they write is at once on the coordinator."""

    def inbox(self, node: str) -> Path:
        rank = list(self.state.nodes).index(node)
        return self.folder.node_exchange(node) / "in" / f"rank-{rank}"

    def outbox(self, node: str) -> Path:
        return self.folder.node_exchange(node) / "out"


class Pair:
    """Nodes n1 and n2 of one run."""

    def __init__(self, root: Path, *options: str) -> None:
        self.bench = Bench(root, ("n1", "n2"))
        self.nodes = [node_folder(root / name) for name in ("n1", "n2")]
        self.options = options
        self.events: list[Event | BaseException] = []

    def start(self, rank: int) -> subprocess.Popen[str]:
        folder = self.bench.folder.node_exchange(f"n{rank + 1}")
        (folder / "in" / f"rank-{rank}").mkdir(parents=True, exist_ok=True)
        return self.nodes[rank].start(
            str(SCRIPT),
            *self.options,
            ORCHESTRATE_EXCHANGE_DIR=str(folder),
            ORCHESTRATE_ROUNDS=f"{rank}/2",
            ORCHESTRATE_FIRST_RANK=str(rank),
            ORCHESTRATE_WORLD_SIZE="2",
        )

    async def train(self) -> list[str]:
        """Both to their end; what they said."""
        processes = [self.start(rank) for rank in range(2)]
        street = Folders(self.bench.folder, {}, self.bench.state)
        context = RunContext(
            request=self.bench.state.request,
            snapshot=None,
            folder=self.bench.folder,
            observers=[Noting(self.bench.notes)],
        )
        serving = asyncio.create_task(average(street, context, self.events.append))
        try:
            said = await asyncio.gather(*(asyncio.to_thread(succeed, p) for p in processes))
            await serving
            return said
        finally:
            serving.cancel()
            for process in processes:
                process.kill()

    @property
    def rounds(self) -> list[RoundClosed]:
        return [event for event in self.events if isinstance(event, RoundClosed)]


def final(node: NodeFolder, rank: int) -> dict[str, float]:
    found = (r for r in node.records(rank) if r["type"] == "metric" and r["step"] is None)
    return {record["name"]: record["value"] for record in found}


def tokens(node: NodeFolder) -> list[int]:
    """Of each step."""
    lines = (node.path / "output" / "loss.jsonl").read_text().splitlines()
    return [json.loads(line)["tokens"] for line in lines]


async def test_from_a_checkpoint_of_ranks_that_met_to_the_end(tmp_path: Path, cache: Path) -> None:
    """One node has it, the other is given the parameters. Both end alike (or the averaging would
    fail), one tells for both, and the curve is that of all rows.
    """
    options = (
        *QUICK,
        f"--steps={STEPS}",
        f"--global-batch={ROWS}",
        "--checkpoint-every=5",
        "--keep-checkpoints=5",
        f"--round-steps={EVERY}",
        f"--cache-dir={cache}",
    )
    whole = node_folder(tmp_path / "whole")
    succeed(await asyncio.to_thread(whole.start, str(SCRIPT), *options))
    pair = Pair(tmp_path, *options)
    first, second = pair.nodes
    name = "step-00000005"
    shutil.copytree(whole.path / "checkpoints" / name, first.path / "checkpoints" / name)
    said = await pair.train()

    assert all("resumed after step 5" in words for words in said)
    assert [(closed.round, closed.step) for closed in pair.rounds] == [(2, 8), (3, 12)]
    rows = [sum(rows for _, rows in closed.weights) for closed in pair.rounds]
    assert rows == [3 * ROWS, 4 * ROWS]
    assert first.losses()[:5] == whole.losses()[:5]
    assert len(first.losses()) == STEPS
    assert tokens(first) == tokens(whole)
    figures = final(first, 0)
    assert figures["eval_loss"] == pytest.approx(whole.metrics()["eval_loss"], rel=0.1)
    assert figures["rounds"] == 2
    assert final(second, 1) == {}
    assert not (second.path / "output" / "adapter").exists()
    kept = [sorted(p.name for p in (n.path / "checkpoints").iterdir()) for n in pair.nodes]
    assert kept[1] == ["step-00000008", "step-00000012"]
