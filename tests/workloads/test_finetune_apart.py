"""Two nodes that train by themselves: the real script on both, the real averaging between them."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from orchestrator.core.run.events import Event, RoundClosed
from orchestrator.core.sharing import rounds
from orchestrator.engine.sharing.diloco import average
from orchestrator.engine.support.context import RunContext
from tests.engine.sharing.test_diloco import Bench, Noting, Street
from tests.forks import Fork
from tests.time_limits import scaled
from tests.workloads.conftest import (
    DEADLINE_S,
    FINETUNE,
    QUICK,
    NodeFolder,
    finish,
    node_folder,
    start_ranks,
    succeed,
)

SCRIPT = FINETUNE / "train.py"
WITH_ENERGY = Path(__file__).parent / "programs" / "train_with_energy.py"
ADAPTER = "adapter_model.safetensors"
STEPS, EVERY, ROWS = 12, 4, 4
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * DEADLINE_S)]


class Folders(Street):
    """The exchange of processes on this machine: what they write is at once on the coordinator."""

    def inbox(self, node: str) -> Path:
        rank = list(self.state.nodes).index(node)
        return self.folder.node_exchange(node) / "in" / f"rank-{rank}"

    def outbox(self, node: str) -> Path:
        return self.folder.node_exchange(node) / "out"


class Pair:
    """Nodes n1 and n2 in one attempt of a run."""

    def __init__(self, root: Path, nodes: list[NodeFolder], *options: str) -> None:
        root.mkdir()
        self.bench = Bench(root, ("n1", "n2"))
        self.nodes = nodes
        self.options = options
        self.events: list[Event | BaseException] = []

    def start(self, rank: int) -> Fork:
        folder = self.bench.folder.node_exchange(f"n{rank + 1}")
        (folder / "in" / f"rank-{rank}").mkdir(parents=True, exist_ok=True)
        return self.nodes[rank].fork(
            str(WITH_ENERGY),
            str(SCRIPT),
            *self.options,
            ORCHESTRATE_EXCHANGE_DIR=str(folder),
            ORCHESTRATE_ROUNDS=f"{rank}/2",
            ORCHESTRATE_FIRST_RANK=str(rank),
            ORCHESTRATE_WORLD_SIZE="2",
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[list[Fork]]:
        """Both, and a coordinator that averages what they offer."""
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
            yield processes
        finally:
            serving.cancel()
            for process in processes:
                process.kill()

    async def train(self) -> list[str]:
        """Both to their end; what they said."""
        async with self.running() as processes:
            return await asyncio.gather(*(asyncio.to_thread(succeed, p) for p in processes))

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


async def test_from_a_checkpoint_of_ranks_that_met_to_the_end(
    tmp_path: Path, beginner: Path
) -> None:
    """One node has it, the other is given the parameters. Both end alike (or the averaging would
    fail), one tells for both, and the curve is that of all rows.
    """
    options = (
        *QUICK,
        f"--model={beginner}",
        f"--steps={STEPS}",
        f"--global-batch={ROWS}",
        "--checkpoint-every=5",
        "--keep-checkpoints=5",
        f"--round-steps={EVERY}",
        "--round-exchange=changes",
    )
    whole = node_folder(tmp_path / "whole")
    succeed(await asyncio.to_thread(whole.fork, str(SCRIPT), *options))
    first, second = (node_folder(tmp_path / name) for name in ("n1", "n2"))
    pair = Pair(tmp_path / "attempt", [first, second], *options)
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
    # The planted counter and the clock are read one after the other.
    assert figures["watts"] == pytest.approx(250, rel=0.05)
    per_joule = figures["tokens_per_s_per_rank"] / figures["watts"]
    assert figures["tokens_per_joule"] == pytest.approx(per_joule)
    assert figures["data_wait"] > 0
    assert final(second, 1) == {}
    assert not (second.path / "output" / "adapter").exists()
    kept = [sorted(p.name for p in (n.path / "checkpoints").iterdir()) for n in pair.nodes]
    assert kept[1] == ["step-00000008", "step-00000012"]


async def test_gradients_summed_over_ssh_are_those_of_a_collective_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a checkpoint that one node has, to which belongs what the optimiser remembers: every
    loss and the adapter are those of two ranks that met, while each node keeps its rows. (A node
    that other work slows down would give some away, and sums would have another order.)
    """
    monkeypatch.setattr(rounds, "WORTH_OTHER_SUMS", 1.0)
    options = (
        *QUICK,
        f"--steps={STEPS}",
        f"--global-batch={ROWS}",
        "--checkpoint-every=5",
        "--keep-checkpoints=5",
    )
    met = [node_folder(tmp_path / name) for name in ("met1", "met2")]
    for process in start_ranks(met, 1, SCRIPT, *options):
        await asyncio.to_thread(succeed, process)
    first, second = (node_folder(tmp_path / name) for name in ("n1", "n2"))
    pair = Pair(tmp_path / "attempt", [first, second], *options)
    name = "step-00000005"
    shutil.copytree(met[1].path / "checkpoints" / name, second.path / "checkpoints" / name)
    said = await pair.train()

    assert all("resumed after step 5" in words for words in said)
    assert all("an exchange takes " in words for words in said)
    assert [closed.exchanged for closed in pair.rounds] == ["gradients"] * len(pair.rounds)
    assert (pair.rounds[0].step, pair.rounds[-1].step) == (6, STEPS)
    assert first.losses() == met[0].losses()
    assert tokens(first) == tokens(met[0])
    adapters = [node.path / "output" / "adapter" / ADAPTER for node in (first, met[0])]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()
    figures = final(first, 0)
    assert figures["rounds"] == STEPS - 5
    assert figures["watts"] == pytest.approx(250, rel=0.05)
    assert figures["eval_loss"] == pytest.approx(met[0].metrics()["eval_loss"], rel=1e-5)
    assert final(second, 1) == {}
    kept = [{path.name for path in (n.path / "checkpoints").iterdir()} for n in pair.nodes]
    assert all({"step-00000010", "step-00000012"} <= names for names in kept)


def told(node: NodeFolder, rank: int) -> list[float]:
    """The losses that a node told of while it trained, of all its attempts."""
    found = (r for r in node.records(rank) if r["type"] == "metric" and r["step"] is not None)
    return [record["value"] for record in found if record["name"] == "train_loss"]


def last_step(node: NodeFolder, rank: int) -> int:
    done = [r["done"] for r in node.records(rank) if r["type"] == "progress"]
    return max(done, default=0)


async def test_nodes_that_are_asked_to_end_save_what_they_have_in_common(tmp_path: Path) -> None:
    """No checkpoint is due: after TERM there is one of the last round that all nodes have applied,
    and the next attempt goes on from there.
    """
    options = (
        *QUICK,
        "--steps=40",
        f"--global-batch={ROWS}",
        "--checkpoint-every=0",
        f"--round-steps={EVERY}",
        "--round-exchange=changes",
    )
    nodes = [node_folder(tmp_path / name) for name in ("n1", "n2")]
    broken = Pair(tmp_path / "broken", nodes, *options)
    async with asyncio.timeout(scaled(DEADLINE_S)), broken.running() as processes:
        # Who is in the third round has applied the first one.
        while min(last_step(node, rank) for rank, node in enumerate(nodes)) <= 2 * EVERY:
            assert all(process.poll() is None for process in processes)
            await asyncio.sleep(0.02)
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            await asyncio.to_thread(finish, process)
    assert [process.returncode for process in processes] == [128 + signal.SIGTERM] * 2
    kept = [[path.name for path in (node.path / "checkpoints").iterdir()] for node in nodes]
    saved = [int(name.removeprefix("step-")) for names in kept for name in names]
    assert len(saved) == 2
    assert all(step >= EVERY and step % EVERY == 0 for step in saved), saved
    # One of them may have applied a round more.
    curve = told(nodes[0], 0)[: min(saved)]
    assert len(curve) == min(saved)

    whole = Pair(tmp_path / "whole", nodes, *options)
    said = await whole.train()
    assert all(f"resumed after step {max(saved)}" in words for words in said)
    assert whole.rounds[0].step == max(saved) + EVERY
    losses = nodes[0].losses()
    assert len(losses) == 40
    assert losses[: len(curve)] == curve
