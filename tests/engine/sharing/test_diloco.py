"""The coordinator's side of local rounds: nodes that are late, lost, lying or new, and a crash."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.adapters.rounds.outer_optimizer import OuterState, read_header
from orchestrator.adapters.rounds.parameter_files import Vector
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.core.base.errors import RunFailed
from orchestrator.core.base.problem import Problem
from orchestrator.core.model.checks import NodeFinding
from orchestrator.core.model.comm_modes import BETWEEN_NODES, Fallback
from orchestrator.core.model.plan import Plan
from orchestrator.core.model.workload import Shape, Workload
from orchestrator.core.planning.planning import make_plan
from orchestrator.core.run.events import Event, RoundClosed
from orchestrator.core.run.state import RunState, new_state
from orchestrator.engine.sharing import diloco as averaging
from orchestrator.engine.sharing.rank_exchange import Exchange
from orchestrator.engine.support.context import RunContext
from tests.core.world import facts, request
from tests.time_limits import scaled

VALUES, STEPS, EVERY = 700, 6, 2
WITHIN_S = 20.0


class Street(Exchange):
    """The exchange without a network: a node is a folder."""

    def inbox(self, node: str) -> Path:
        return self.folder.path / "nodes" / node / "in"

    def outbox(self, node: str) -> Path:
        return self.folder.path / "nodes" / node / "out"

    async def feed(self, node: str, rank: int, number: int, content: bytes | Path) -> None:
        end = "json" if isinstance(content, bytes) else "bin"
        target = self.inbox(node) / f"{number:08d}.{end}"
        data = content if isinstance(content, bytes) else _read(content)
        _write(target, data)

    async def fetch(self, node: str, name: str, size: int, sha256: str, target: Path) -> None:
        data = _read(self.outbox(node) / name)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise RunFailed("another digest", id="OR-COLLECT-002")
        _write(target, data)


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _write(path: Path, data: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    partial.rename(path)


class Bench:
    """One run, its nodes, and as many coordinators as a test needs."""

    def __init__(self, root: Path, names: tuple[str, ...]) -> None:
        self.folder = RunFolder(root / "r1")
        self.folder.path.mkdir(mode=0o700)
        workload = Workload(
            name="w", source="-", folder="/w", entry="w.py", shape=Shape.LOCAL_ROUNDS
        )
        asked = request(*names, workload=workload)
        findings = {
            name: NodeFinding(facts=facts(name), interpreter="python", modules={"torch": "2"})
            for name in names
        }
        falls = [Fallback(rung=rung, reason="cut", seconds=0.0) for rung in BETWEEN_NODES]
        planned = make_plan(asked, findings, {}, falls=falls)
        assert isinstance(planned, Plan)
        self.plan = planned
        self.state: RunState = replace(new_state(asked), plan=planned, launching=True)
        self.notes: list[str] = []
        self.events: list[Event | BaseException] = []
        self.street = self._street()
        self.nodes = [Node(self, name, rank) for rank, name in enumerate(names)]

    def _street(self) -> Street:
        return Street(self.folder, {}, self.state)

    def lose(self, name: str) -> None:
        node = replace(self.state.nodes[name], lost=Problem(id="OR-LINK-001", message="gone"))
        self.state = replace(self.state, nodes=self.state.nodes.with_item(name, node))
        self.street.see(self.state)

    @asynccontextmanager
    async def coordinator(self) -> AsyncIterator[asyncio.Task[None]]:
        """A coordinator for as long as this takes, killed at the end if it still works."""
        self.street = self._street()
        noting = Noting(self.notes)
        context = RunContext(
            request=self.state.request, snapshot=None, folder=self.folder, observers=[noting]
        )
        task = asyncio.create_task(averaging.average(self.street, context, self.events.append))
        try:
            yield task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, RunFailed):
                await task

    @property
    def rounds(self) -> list[RoundClosed]:
        return [event for event in self.events if isinstance(event, RoundClosed)]


class Noting:
    """Keeps notes."""

    def __init__(self, notes: list[str]) -> None:
        self.on_note = notes.append


class Node:
    """A node as the workload's script is, except that it has learned what the test says."""

    def __init__(self, bench: Bench, name: str, rank: int) -> None:
        self.bench, self.name, self.rank = bench, name, rank
        self.values = np.zeros(VALUES, dtype=np.float32)
        self._lines = bench.folder.exchange(name, f"exchange-{rank}.jsonl")
        for folder in (self._lines.parent, bench.street.inbox(name), bench.street.outbox(name)):
            folder.mkdir(parents=True, mode=0o700)

    def tell(self, **record: Any) -> None:
        with self._lines.open("a") as file:
            file.write(json.dumps(record) + "\n")
        self.bench.street.changed.set()

    def digest(self) -> str:
        return hashlib.sha256(self.values.tobytes()).hexdigest()

    def join(self, step: int = 0, **changed: Any) -> None:
        terms = {"steps": STEPS, "round_steps": EVERY, "rows": 12, "values": VALUES}
        terms |= {"compression": "none", "learning_rate": 1.0, "momentum": 0.0}
        training = "e" * 64
        record = {"type": "join", "step": step, "sha256": self.digest(), "training": training}
        self.tell(**(record | terms | changed))

    def offer(self, name: str, data: bytes, digest: str = "", **record: Any) -> None:
        (self.bench.street.outbox(self.name) / name).write_bytes(data)
        digest = digest or hashlib.sha256(data).hexdigest()
        self.tell(**record, name=name, bytes=len(data), sha256=digest)

    def ask(self, step_s: float, steps: int = 10**6) -> None:
        """What to exchange, with a sample of a gradient."""
        sample = np.ones(VALUES, dtype=np.float32).tobytes()
        trial = {"type": "trial", "step_s": step_s, "steps": steps, "values": VALUES}
        self.offer("trial.bin", sample, **trial)

    def offered(self, number: int) -> bool:
        return (self.bench.street.outbox(self.name) / f"part-{number}.bin").exists()

    def forget_feeds(self) -> None:
        """As if it had taken them all."""
        for path in self.bench.street.inbox(self.name).iterdir():
            path.unlink()

    def part(
        self,
        number: int,
        change: float | NDArray[np.float32],
        rows: int = 12,
        seconds: float = 1.0,
        lie: str = "",
    ) -> None:
        data = np.broadcast_to(np.float32(change), VALUES).tobytes()
        step = {"step": number * EVERY, "loss": 1.0, "targets": 5, "tokens": 7, "seconds": 0.1}
        self.offer(
            f"part-{number}.bin",
            data[:-4] if lie == "short" else data,
            "0" * 64 if lie == "digest" else "",
            type="part",
            round=number,
            rows=rows,
            pace={"rows": rows, "seconds": seconds},
            curve=[step],
        )

    async def words(self, number: int) -> dict[str, Any]:
        """A feed of words, once it is there."""
        path = self.bench.street.inbox(self.name) / f"{number:08d}.json"
        await until(path.exists)
        words: dict[str, Any] = json.loads(path.read_bytes())
        return words

    async def update(self, number: int) -> tuple[dict[str, Any], NDArray[np.float32]]:
        """A round's header and values, once they are there."""
        path = self.bench.street.inbox(self.name) / f"{number + 2:08d}.bin"
        await until(path.exists)
        header, begin = read_header(path.read_bytes())
        content = np.frombuffer(path.read_bytes()[begin:], dtype=np.uint8)
        return header, Vector(content, "none", VALUES).read(0, VALUES)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(scaled(WITHIN_S)):
        while not holds():  # noqa: ASYNC110 - what is waited for are files
            await asyncio.sleep(0.01)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, ("n1", "n2", "n3"))


async def begin(bench: Bench) -> None:
    for node in bench.nodes:
        node.join()
    for node in bench.nodes:
        assert (await node.words(1))["step"] == 0


async def test_all_rounds_from_the_beginning_to_the_end(bench: Bench) -> None:
    """The average is weighted by rows; everybody gets the same; the first node reports."""
    async with bench.coordinator() as work:
        await begin(bench)
        for number in (1, 2, 3):
            for node, change, rows in zip(bench.nodes, (1.0, 2.0, 5.0), (6, 4, 2), strict=True):
                node.part(number, change, rows)
            for node in bench.nodes:
                header, values = await node.update(number)
                assert (header["round"], header["included"]) == (number, [0, 1, 2])
                assert values == pytest.approx(-2.0)
                assert (header["step"], header["curve"][0]["tokens"]) == (2 * number, 21)
        for node in bench.nodes:
            node.tell(type="end", sha256="f" * 64)
        for node in bench.nodes:
            assert await node.words(6) == {"type": "verdict", "reports": 0}
        await work
    assert [(closed.round, closed.step) for closed in bench.rounds] == [(1, 2), (2, 4), (3, 6)]
    assert bench.rounds[0].weights == (("n1", 6), ("n2", 4), ("n3", 2))
    assert bench.rounds[0].bytes == 6 * 4 * VALUES
    assert not bench.notes
    kept = {path.name for path in (bench.folder.work / "rounds").iterdir()}
    assert kept == {"state.json", "update-3.bin"}


async def test_gradients_are_summed_to_the_bit_and_most_steps_are_not_told_of(
    bench: Bench,
) -> None:
    """Float32 as the nodes have them, a round a step; rows stay where collectives have them."""
    generator = np.random.default_rng(3)
    async with bench.coordinator() as work:
        for node in bench.nodes:
            node.join(exchange="gradients", round_steps=1)
        start = await bench.nodes[0].words(1)
        assert start["ranks"] == [len(node.ranks) for node in bench.plan.nodes]
        for number in range(1, STEPS + 1):
            given = [generator.normal(size=VALUES).astype(np.float32) for _ in bench.nodes]
            for node, values in zip(bench.nodes, given, strict=True):
                node.part(number, values)
            for node in bench.nodes:
                header, values = await node.update(number)
                assert np.array_equal(values, given[0] + given[1] + given[2])
                assert header["step"] == number
                assert header["curve"][0]["targets"] == 15
                assert header["shares"][str(number + 1)] == pytest.approx([1 / 3] * 3)
        for node in bench.nodes:
            node.tell(type="end", sha256="f" * 64)
        await work
    told = [closed.round for closed in bench.rounds]
    assert (told[0], told[-1]) == (1, STEPS)
    assert len(told) < STEPS


async def test_a_late_node_is_left_out_and_a_lost_one_is_not_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late: out of that round only. Lost: its share goes to the others from the next plan on."""
    monkeypatch.setattr("orchestrator.core.sharing.rounds.MIN_PATIENCE_S", scaled(0.1))
    first, second, third = bench.nodes
    async with bench.coordinator():
        await begin(bench)
        first.part(1, 1.0, seconds=0.01)
        second.part(1, 3.0, seconds=0.01)
        header, values = await third.update(1)
        assert header["included"] == [0, 1]
        assert values == pytest.approx(-2.0)
        await until(lambda: bool(bench.rounds))
        assert bench.rounds[0].missing == ("n3",)
        bench.lose("n1")
        second.part(2, 1.0, seconds=0.01)
        third.part(2, 1.0, rows=24, seconds=0.01)
        header, _ = await second.update(2)
        assert (header["included"], header["reports"]) == ([1, 2], 1)
        assert header["shares"]["4"][0] == 0
        assert sum(header["shares"]["4"]) == pytest.approx(1)
        assert header["shares"]["3"] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("lie", ["nan", "short", "digest"])
async def test_a_part_that_is_wrong_does_not_count_and_its_node_is_named(
    bench: Bench, lie: str
) -> None:
    """The others go on without it."""
    first, second, third = bench.nodes
    async with bench.coordinator():
        await begin(bench)
        first.part(1, 1.0)
        third.part(1, 1.0)
        second.part(1, float("nan") if lie == "nan" else 1.0, lie=lie)
        header, _ = await second.update(1)
        assert header["included"] == [0, 2]
    assert [note for note in bench.notes if note.startswith("n2: its part in round 1")]


async def test_nodes_without_the_newest_parameters_are_given_them(bench: Bench) -> None:
    """One has a checkpoint; it offers, and the others begin with that."""
    first, second, third = bench.nodes
    second.values += 7
    first.join()
    third.join()
    second.join(step=4)
    async with bench.coordinator():
        asked = await second.words(1)
        assert (asked["step"], asked["offer"], asked["needs"]) == (4, True, False)
        assert not (bench.street.inbox("n1") / "00000001.json").exists()
        second.offer("parameters.bin", b"h" + second.values.tobytes(), type="parameters")
        for node in (first, third):
            told = await node.words(1)
            assert (told["step"], told["needs"], told["sha256"]) == (4, True, second.digest())
            given = bench.street.inbox(node.name) / "00000002.bin"
            assert given.read_bytes() == b"h" + second.values.tobytes()
        assert set(told["shares"]) == {"3", "4"}
        for node in bench.nodes:
            node.part(3, 1.0)
        header, _ = await first.update(1)  # the first of this attempt
        assert (header["round"], header["step"]) == (3, 6)


async def test_a_node_with_other_settings_ends_the_training_with_the_reason(bench: Bench) -> None:
    """Everybody is told."""
    first, second, third = bench.nodes
    first.join()
    second.join(rows=13)
    third.join()
    async with bench.coordinator() as work:
        for node in bench.nodes:
            assert "n1 and n2 have different rows" in (await node.words(1))["why"]
        with pytest.raises(RunFailed, match="cannot continue"):
            await work


async def test_nodes_that_end_with_different_parameters_fail_the_run(bench: Bench) -> None:
    """Named with the digests; nobody is told that all is well."""
    async with bench.coordinator() as work:
        await begin(bench)
        for number in (1, 2, 3):
            for node in bench.nodes:
                node.part(number, 1.0)
            await bench.nodes[0].update(number)
        for node, digest in zip(bench.nodes, "aab", strict=True):
            node.tell(type="end", sha256=digest * 64)
        with pytest.raises(RunFailed, match="n3 bbbbbbbbbbbb"):
            await work
        assert (await bench.nodes[0].words(6))["type"] == "over"


@pytest.mark.parametrize(
    "step_s,exchanged", [(1e6, "gradients"), (1e-6, "changes")], ids=["cheap", "dear"]
)
async def test_what_is_exchanged_is_answered_to_all_alike(
    bench: Bench, step_s: float, exchanged: str
) -> None:
    """Once all have asked, and their samples went there and back; then the training begins."""
    first, *others = bench.nodes
    async with bench.coordinator():
        for node in others:
            node.ask(step_s)
        await until((bench.street.outbox(others[0].name) / "trial.bin").exists)
        assert not list(bench.street.inbox(others[0].name).iterdir())
        first.ask(step_s / 2)
        answers = [await node.words(0) for node in bench.nodes]
        assert [answer["exchanged"] for answer in answers] == [exchanged] * 3
        assert answers[0]["step_s"] == step_s
        assert answers[0]["exchange_s"] > 0
        given = [bench.street.inbox(node.name) / "00000000.bin" for node in bench.nodes]
        assert {path.stat().st_size for path in given} == {4 * VALUES}
        await begin(bench)


async def test_a_lost_node_is_not_waited_for_before_the_exchange_is_chosen(bench: Bench) -> None:
    """Nor one whose sample is another than it said."""
    first, second, third = bench.nodes
    async with bench.coordinator():
        first.ask(1e6)
        second.offer("trial.bin", b"abcd", "0" * 64, type="trial", step_s=1, steps=1, values=1)
        third.ask(1e6)
        bench.lose(third.name)
        assert (await first.words(0))["step_s"] == 1e6
        assert "did not come" in bench.notes[0]
        for node in (first, second):
            node.forget_feeds()
            node.join()
        assert (await first.words(1))["step"] == 0
        assert not (bench.street.inbox(first.name) / "00000000.json").exists(), "told once"


async def test_who_takes_over_gives_the_same_answer(bench: Bench) -> None:
    """However long it would take now: nodes that differ could not train together."""
    for node in bench.nodes:
        node.ask(1e6)
    async with bench.coordinator():
        first = [await node.words(0) for node in bench.nodes]
    for node in bench.nodes:
        node.forget_feeds()
    async with bench.coordinator():
        assert [await node.words(0) for node in bench.nodes] == first


async def test_who_waits_for_the_choice_hears_why_there_is_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the coordinator cannot keep it, say."""

    def full(*_: object) -> None:
        raise RunFailed("no space left", id="OR-ROUND-001")

    monkeypatch.setattr(OuterState, "save_choice", full)
    async with bench.coordinator() as work:
        for node in bench.nodes:
            node.ask(1.0)
        assert (await bench.nodes[0].words(0))["type"] == "over"
        with pytest.raises(RunFailed, match="no space left"):
            await work


@pytest.mark.parametrize("crash", ["joined", "begun", "parts", "closed"])
async def test_a_coordinator_that_takes_over_goes_on(bench: Bench, crash: str) -> None:
    """Killed at any point: what was told is repeated, no round is lost or counted twice."""
    first, *others = bench.nodes
    async with bench.coordinator():
        first.join()
        if crash != "joined":
            for node in others:
                node.join()
            await others[-1].words(1)
        await half_a_round(bench, crash)
    for node in bench.nodes:
        node.forget_feeds()
    async with bench.coordinator() as work:
        if crash == "joined":
            for node in others:
                node.join()
        for number in (1, 2, 3):
            for node in bench.nodes:
                if not node.offered(number):
                    node.part(number, 1.0)
            for node in bench.nodes:
                assert (await node.update(number))[1] == pytest.approx(-1.0)
        for node in bench.nodes:
            node.tell(type="end", sha256="f" * 64)
        await work
    assert [closed.round for closed in bench.rounds] == [1, 2, 3]


async def half_a_round(bench: Bench, crash: str) -> None:
    """Up to where the coordinator dies."""
    first, *others = bench.nodes
    if crash in ("parts", "closed"):
        first.part(1, 1.0)
        await until((bench.folder.work / "rounds" / "part-1-0.bin").exists)
    if crash == "closed":
        for node in others:
            node.part(1, 1.0)
        await until(lambda: bool(bench.rounds))
