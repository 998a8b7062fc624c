"""What a run reports: progress at each step, the loss curve, and the figures at the end."""

from __future__ import annotations

import json
import math
import os
import resource
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

import orchestrate_kit as kit

from ..base.settings import Settings
from ..base.world import World
from .accounting import flop_per_token, peak_flops
from .trainer import StepRecord

MAX_WARMUP_STEPS = 20


class Recorder:
    """The history of a training over all its attempts; part of each checkpoint."""

    def __init__(self, settings: Settings, world: World) -> None:
        self.settings = settings
        self.world = world
        self.speaks = world.is_main  # of nodes that train by themselves one speaks for all
        self.steps: list[StepRecord] = []
        self.measured: list[int] = []  # steps that count for rates and times
        self.profiled: set[int] = set()  # steps that are slower for a profile, and count for none
        self.eval_loss_first: float | None = None
        self.eval_losses: dict[int, float] = {}
        self.first_measured = 1 + warmup_steps(settings.steps)
        self.window = kit.MeasuredWindow(str(world.device))  # of the steps that count

    def state(self) -> dict[str, Any]:
        """Plain values, fit for a checkpoint."""
        return {
            "steps": [asdict(record) for record in self.steps],
            "measured": list(self.measured),
            "eval_loss_first": self.eval_loss_first,
            "eval_losses": dict(self.eval_losses),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned; the next steps warm up again."""
        self.steps = [StepRecord(**record) for record in state["steps"]]
        self.measured = list(state["measured"])
        self.eval_loss_first = state["eval_loss_first"]
        # Through JSON their keys become text.
        self.eval_losses = {int(step): loss for step, loss in state["eval_losses"].items()}
        self.first_measured = 1 + len(self.steps) + warmup_steps(self.settings.steps)

    def before_step(self, step: int) -> None:
        """From the first step that counts on, energy is measured; a profile begins or ends."""
        kit.mark_step()
        if kit.profiling():
            self.profiled.add(step)
        if step >= self.first_measured:
            self.window.begin()

    def count_tokens(self, tokens: int) -> None:
        """What all ranks that this one leads trained on in a step."""
        if self.world.is_main:
            self.window.count(tokens=tokens)

    def add_step(self, record: StepRecord) -> None:
        """Note a finished step and show it."""
        self.add_steps([record])
        self.show(record)

    def add_steps(self, records: Sequence[StepRecord]) -> None:
        """Note finished steps."""
        self.steps += records
        counted = (r.step for r in records if r.step >= self.first_measured)
        self.measured += [step for step in counted if step not in self.profiled]
        if self.speaks:
            for record in records:
                kit.metric("train_loss", record.loss, "nats/token", step=record.step)

    def extend_last_step(self, seconds: float) -> None:
        """What came after it belongs to the training, too."""
        last = self.steps[-1]
        self.steps[-1] = replace(last, seconds=last.seconds + seconds)

    def show(self, record: StepRecord) -> None:
        """How far this rank is."""
        if self.world.is_main:
            kit.progress(
                record.step,
                self.settings.steps,
                "step",
                loss=round(record.loss, 4),
                lr=float(f"{record.learning_rate:.4g}"),
                tokens_per_s=round(record.tokens / record.seconds, 1),
            )

    def add_eval_loss(self, step: int, loss: float) -> None:
        """Note an evaluation after `step`; step 0 is the model before training."""
        if step == 0:
            self.eval_loss_first = loss
        else:
            self.eval_losses[step] = loss
        if self.speaks:
            kit.metric("eval_loss", loss, "nats/token", step=step)

    def figures(self) -> dict[str, tuple[float, str]]:
        """Losses and rates of the whole training: name -> (value, unit)."""
        losses = [record.loss for record in self.steps]
        chosen = set(self.measured)
        timed = [record for record in self.steps if record.step in chosen] or self.steps
        seconds = [record.seconds for record in timed]
        rate = sum(record.tokens for record in timed) / sum(seconds)
        timing = timed_figures(timed, rate / self.world.total, self.settings.gpu_hour_usd)
        last = losses[-min(10, math.ceil(len(losses) / 10)) :]
        assert self.eval_loss_first is not None
        return {
            "train_loss_first": (losses[0], "nats/token"),
            "train_loss_final": (sum(last) / len(last), "nats/token"),
            "eval_loss_first": (self.eval_loss_first, "nats/token"),
            "eval_loss": (self.eval_losses[self.settings.steps], "nats/token"),
            "tokens_per_s": (rate, "tok/s"),
            "tokens_per_s_per_rank": (rate / self.world.total, "tok/s"),
            "step_time_p50": (percentile(seconds, 50), "s"),
            "step_time_p95": (percentile(seconds, 95), "s"),
            **timing,
            **energy_figures(self.window.energy, rate / self.world.total),
        }

    def own_step_s(self) -> float:
        """What this rank takes for a step, without waiting for gradients of others; median."""
        chosen = set(self.measured)
        timed = [record for record in self.steps if record.step in chosen] or self.steps
        return percentile([record.seconds - record.communication_s for record in timed], 50)

    def write_curve(self, path: Path) -> None:
        """One JSON line a step."""
        write_lines(path, (asdict(record) for record in self.steps))


def timed_figures(
    timed: Sequence[StepRecord], per_rank: float, gpu_hour_usd: float
) -> dict[str, tuple[float, str]]:
    """Where the time of the reporting rank's steps went, and the price of tokens."""
    total = sum(record.seconds for record in timed)
    figures = {
        "data_wait": (sum(record.data_s for record in timed) / total, "fraction"),
        "communication_wait": (
            sum(record.communication_s for record in timed) / total,
            "fraction",
        ),
    }
    if gpu_hour_usd:
        cost = gpu_hour_usd / 3600 / per_rank * 1e6
        figures["usd_per_million_tokens"] = (cost, "USD")
    return figures


def energy_figures(energy: kit.NodeEnergy | None, per_rank: float) -> dict[str, tuple[float, str]]:
    """Of a GPU of this node, on average; nothing where its energy is not valid. `per_rank`: tokens
    per second of one of its ranks.
    """
    if energy is None or not energy.valid or energy.watts is None:
        return {}
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    watts = energy.watts / len(energy.gpus)
    return {
        "watts": (watts, "W"),
        "tokens_per_joule": (per_rank * ranks / energy.watts, "tok/J"),
    }


def node_figures(world: World, node: str, own_s: float) -> dict[str, tuple[float, str]]:
    """What the slowest rank of each node takes for its own part of a step; all ranks call it."""
    slowest: dict[str, float] = {}
    for name, seconds in world.gather((node, own_s)):
        slowest[name] = max(seconds, slowest.get(name, 0.0))
    if len(slowest) == 1:
        return {}
    return {f"own_step_s.{name}": (seconds, "s") for name, seconds in slowest.items()}


def arithmetic_figures(model: Any, world: World, per_rank: float) -> dict[str, tuple[float, str]]:
    """What a token takes, and the part of the device's peak that this is at `per_rank` tokens/s."""
    flop = flop_per_token(model)
    figures: dict[str, tuple[float, str]] = {"flop_per_token": (flop, "FLOP/tok")}
    on_gpu = world.device.type == "cuda"
    peak = peak_flops(torch.cuda.get_device_name(world.device)) if on_gpu else None
    if peak is not None:
        figures["mfu"] = (per_rank * flop / peak, "fraction")
    return figures


def warmup_steps(steps: int) -> int:
    """How many steps at the start of an attempt are left out of rates and times."""
    return min(MAX_WARMUP_STEPS, steps // 10)


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that at least `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory that this rank has held: of the CUDA allocator, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines to a file that appears complete or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    partial.replace(path)
