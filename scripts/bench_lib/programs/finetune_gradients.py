"""How far the gradients of each way to compute are from those of the same model in fp32.

    python3 scripts/bench_lib/programs/finetune_gradients.py --model qwen2-7b --layers 4 --seeds 6

One JSON line for each way and seed: its loss, and the distance of all adapter gradients from the
exact ones as a part of these, as a whole and for each kind of matrix (of several layers, the
furthest). With several seeds, a last line has the means, and their standard errors.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[2]
WORKLOADS = SCRIPTS.parent / "workloads"
sys.path += [str(WORKLOADS), str(SCRIPTS)]

import torch  # noqa: E402 - after the workload's folder
from bench_lib.finetuning.models import SEED, SHAPES, qwen2  # noqa: E402
from bench_lib.finetuning.rows import drawn  # noqa: E402
from torch import Tensor  # noqa: E402

from finetune.data.packing import collate, text_example  # noqa: E402
from finetune.fused.model import FusedModel  # noqa: E402

ROWS = 4
FAR = 0.005  # of B's values: an adapter that matters


class Compared:
    """One model and one batch."""

    def __init__(self, model: Any, length: int) -> None:
        self.model = model
        self.named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        for name, parameter in self.named.items():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=FAR)
            parameter.grad = torch.zeros_like(parameter)
        words = list(drawn(ROWS, length))
        device = next(iter(self.named.values())).device
        self.ids = torch.tensor(words, device=device)
        rows = [(text_example(own[:1], own[1:]),) for own in words]
        self.batch = collate(rows, pad=0, one_row=True)

    def usual(self, *, autocast: bool) -> tuple[float, list[Tensor]]:
        with torch.autocast(self.ids.device.type, torch.bfloat16, enabled=autocast):
            loss = self.model(input_ids=self.ids, labels=self.ids, use_cache=False).loss
        loss.backward()
        return float(loss.detach()), self._taken()

    def ours(self, *, fp8: bool) -> tuple[float, list[Tensor]]:
        fused = FusedModel(self.model, fp8=fp8)
        targets = ROWS * (self.ids.shape[1] - 1)
        loss = fused.accumulate(fused.lay(self.batch), 1 / targets)
        return float(loss) / targets, self._taken()

    def _taken(self) -> list[Tensor]:
        """The gradients, after which they are zero again."""
        found = []
        for parameter in self.named.values():
            assert parameter.grad is not None
            found.append(parameter.grad.clone())
            parameter.grad.zero_()
        return found

    def apart(self, found: list[Tensor], exact: list[Tensor]) -> dict[str, float]:
        furthest: dict[str, float] = {"all": _distance(_flat(found), _flat(exact))}
        for name, own, wanted in zip(self.named, found, exact, strict=True):
            projection, _, matrix = name.partition(".lora_")
            kind = f"{projection.rpartition('.')[2]} {matrix[0]}"
            furthest[kind] = max(furthest.get(kind, 0.0), _distance(own, wanted))
        return furthest


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _distance(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def compared(model: Any, length: int) -> Iterator[dict[str, Any]]:
    """A record for each way. The model, in bf16 before, is in fp32 after."""
    pair = Compared(model, length)
    ways = {
        "usual": pair.usual(autocast=False),
        "usual, autocast": pair.usual(autocast=True),
        "ours": pair.ours(fp8=False),
        "ours, fp8": pair.ours(fp8=True),
    }
    pair.model.float()
    loss, exact = pair.usual(autocast=False)
    yield {"name": "fp32", "loss": loss}
    for name, (own_loss, found) in ways.items():
        yield {"name": name, "loss": own_loss, "apart": pair.apart(found, exact)}


def means(records: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Of each way: the mean distance over two seeds or more, and its standard error."""
    found: dict[str, list[float]] = {}
    for record in records:
        if "apart" in record:
            found.setdefault(record["name"], []).append(record["apart"]["all"])
    return {
        name: (statistics.fmean(each), statistics.stdev(each) / len(each) ** 0.5)
        for name, each in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=list(SHAPES), default="tiny")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--seeds", type=int, default=1, help="models with other random values")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    records = []
    for seed in range(SEED, SEED + options.seeds):
        model = qwen2(options.model, device, seed=seed, num_hidden_layers=options.layers)
        model.get_base_model().bfloat16()
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        for record in compared(model, options.length):
            records.append({"seed": seed, **record})
            print(json.dumps(records[-1]), flush=True)
    if options.seeds > 1:
        print(json.dumps({"name": "means", "seeds": options.seeds, "apart": means(records)}))


if __name__ == "__main__":
    main()
