"""What averaging every few steps costs a training: nodes in turn in one process, no network.

    python3 scripts/bench_lib/programs/finetune_rounds.py --text SITE_PACKAGES/transformers

One JSON line for each way: first all rows in each step, as with collectives, then the changes of
`--nodes` nodes averaged in rounds, with and without a learning rate that grows as a node's part of
the rows shrinks. `evaluation` is the loss on rows that nobody trained on, `of_healthy` by the first
line's; `curve` is the mean loss of each tenth of the steps.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[2]
WORKLOADS = SCRIPTS.parent / "workloads"
sys.path += [str(WORKLOADS), str(SCRIPTS)]

import torch  # noqa: E402
from bench_lib.finetuning.models import SHAPES, qwen2  # noqa: E402
from bench_lib.finetuning.rows import drawn, written  # noqa: E402
from torch import Tensor  # noqa: E402

import orchestrate_kit as kit  # noqa: E402 - after its folder
from finetune.base.settings import Settings  # noqa: E402
from finetune.rounds.local_rounds import stride_of  # noqa: E402
from finetune.training.trainer import clip, flat, learning_rate_at, views  # noqa: E402

HELD_OUT = 64
TOGETHER = 4  # rows in one pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """How nodes are averaged: an update is applied `after` so many steps of the next round."""

    nodes: int = 1
    every: int = 1
    after: int = 0
    scaling: str = "none"


class Node:
    """One node's parameters and its AdamW, over all values in one vector."""

    def __init__(self, values: Tensor) -> None:
        self.values = torch.nn.Parameter(values.clone())
        self.optimiser = torch.optim.AdamW([self.values], weight_decay=0.0)

    def step(self, gradient: Tensor, learning_rate: float) -> None:
        self.values.grad = gradient
        self.optimiser.param_groups[0]["lr"] = learning_rate
        self.optimiser.step()

    def move(self, change: Tensor) -> None:
        self.values.data.add_(change)


class Training:
    """The same rows, from the same adapter, for each way."""

    def __init__(self, model: Any, settings: Settings, rows: list[list[int]]) -> None:
        self.model = model
        self.settings = settings
        self.held_out, self.rows = rows[:HELD_OUT], rows[HELD_OUT:]
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.begin = flat(self.parameters)

    def run(self, way: Rounds) -> tuple[float, list[float]]:
        """The evaluation loss at the end, and the loss of each step."""
        common = self.begin.clone()
        nodes = [Node(common) for _ in range(way.nodes)]
        parts: list[Tensor] | None = None  # offered, and not averaged yet
        losses = []
        steps, per_step = self.settings.steps, self.settings.global_batch
        for step in range(1, steps + 1):
            whole = self.rows[(step - 1) * per_step : step * per_step]
            losses.append(self._step(step, whole, nodes, way.scaling))
            since = (step - 1) % way.every + 1
            closes = since == way.every or step == steps
            if parts is not None and (since == way.after or closes):
                common, parts = self._average(common, nodes, parts), None
            if closes:
                parts = [common - node.values.detach() for node in nodes]
                if not way.after or step == steps:
                    common, parts = self._average(common, nodes, parts), None
        return self._evaluate(common), losses

    def _step(
        self, step: int, whole: Sequence[list[int]], nodes: Sequence[Node], scaling: str
    ) -> float:
        """One step on every node; the mean loss."""
        total = 0.0
        for index, node in enumerate(nodes):
            rows = whole[index :: len(nodes)]
            stride = stride_of(scaling, len(rows), len(whole))
            gradient, loss = self._gradient(node.values.detach(), rows)
            node.step(gradient, stride * learning_rate_at(step, self.settings))
            total += loss * len(rows) / len(whole)
        return total

    def _average(self, common: Tensor, nodes: Sequence[Node], parts: Sequence[Tensor]) -> Tensor:
        """The new common values; in each node's the average takes the place of its own part."""
        average = torch.stack(list(parts)).mean(dim=0)
        for node, part in zip(nodes, parts, strict=True):
            node.move(part - average)
        return common - average

    def _gradient(self, values: Tensor, rows: Sequence[list[int]]) -> tuple[Tensor, float]:
        """Of the mean loss of `rows`, clipped as the workload does, and that loss."""
        self._put(values)
        total = 0.0
        for start in range(0, len(rows), TOGETHER):
            loss = self._loss(rows[start : start + TOGETHER]) / len(rows)
            loss.backward()
            total += float(loss.detach())
        gradient = flat(parameter.grad for parameter in self.parameters)
        for parameter in self.parameters:
            parameter.grad = None
        clip(gradient, self.settings.max_grad_norm)
        return gradient, total

    def _loss(self, rows: Sequence[list[int]]) -> Tensor:
        """The sum over the rows of their mean losses."""
        ids = torch.tensor(list(rows), device=self.begin.device)
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.is_cuda):
            loss: Tensor = self.model(input_ids=ids, labels=ids, use_cache=False).loss
        return loss * len(rows)

    @torch.no_grad()
    def _evaluate(self, values: Tensor) -> float:
        self._put(values)
        found = (
            float(self._loss(self.held_out[start : start + TOGETHER]))
            for start in range(0, len(self.held_out), TOGETHER)
        )
        return sum(found) / len(self.held_out)

    @torch.no_grad()
    def _put(self, values: Tensor) -> None:
        for parameter, part in zip(self.parameters, views(values, self.parameters), strict=True):
            parameter.copy_(part)


def compared(training: Training, ways: dict[str, Rounds]) -> Iterator[dict[str, Any]]:
    """A record for each way; the first is what the others are compared with."""
    healthy: float | None = None
    for name, way in ways.items():
        evaluation, losses = training.run(way)
        healthy = healthy or evaluation
        tenth = max(1, len(losses) // 10)
        means = [sum(losses[at : at + tenth]) / tenth for at in range(0, 10 * tenth, tenth)]
        ratio = evaluation / healthy
        yield {"name": name, "evaluation": evaluation, "of_healthy": ratio, "curve": means}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=list(SHAPES), default="tiny")
    parser.add_argument("--text", type=Path, help="the .py files under this folder; else drawn")
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--rows", type=int, default=8, help="in a step, of all nodes")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--after", type=int, default=5)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = replace(
        kit.parse(Settings, []),
        steps=options.steps,
        global_batch=options.rows,
        learning_rate=options.learning_rate,
    )
    count = HELD_OUT + options.steps * options.rows
    if options.text is None:
        rows = list(drawn(count, options.length))
    else:
        vocabulary = SHAPES[options.model]["vocab_size"]
        rows = list(written(options.text, count, options.length, vocabulary))
    Random(0).shuffle(rows)
    training = Training(qwen2(options.model, device), settings, rows)
    cut = {"nodes": options.nodes, "every": options.every, "after": options.after}
    ways = {
        "all rows": Rounds(),
        "averaged": Rounds(**cut),
        "averaged, scaled": Rounds(**cut, scaling="sqrt"),
    }
    for record in compared(training, ways):
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
