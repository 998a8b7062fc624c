#!/usr/bin/env python3
"""LoRA fine-tuning for function calling, on one rank or many.

    python train.py
    torchrun --nproc-per-node 2 train.py --steps 60

The first downloads nothing: it takes a small model that is included, generates a data set, and
trains in the same way as the real presets in workload.yaml do.
"""

from __future__ import annotations

import gc
import hashlib
import os
import socket
import sys
import traceback
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

if not __package__:  # a script: its folder is a package then, too, and the kit lies beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = Path(__file__).resolve().parent.name

import torch

import orchestrate_kit as kit

from .base.settings import Settings
from .base.world import Place, World, joined_world, place_of_node
from .data.conversations import digest_conversations, encode, load_conversations
from .data.packing import Row, make_rows, plan_rows, text_figures
from .model.lora import (
    RELOAD_PASSES,
    RELOAD_TOLERANCE,
    Trainable,
    prepare,
    reload_difference,
    save_adapter,
)
from .rounds.exchange_choice import choose_exchange
from .rounds.gradient_sum import GradientSum
from .rounds.local_rounds import LocalRounds
from .rounds.round_plan import steps_in_round, without_effect
from .training.checkpoint_writer import CheckpointWriter, saving_on_term
from .training.checkpoints import agree_on_checkpoint
from .training.evaluation import answer_prompts, exact_match, mean_loss
from .training.recorder import (
    Recorder,
    arithmetic_figures,
    node_figures,
    peak_memory_bytes,
    write_lines,
)
from .training.trainer import StepRecord, Trainer, TrainingFailed, collate_for, train


class Run:
    """One attempt at a fine-tuning: data, model, training, evaluation, results."""

    def __init__(self, settings: Settings, world: World) -> None:
        self.settings = settings
        self.world = world
        self.recorder = Recorder(settings, world)
        training, held_out = load_conversations(settings)
        self.data = digest_conversations([*training, *held_out])
        world.require_equal("the data set", self.data)
        self.trainable = prepare(settings, world)
        tokenizer = self.trainable.tokenizer
        self.held_out = [encode(conversation, tokenizer) for conversation in held_out]
        length, pack = settings.sequence_length, settings.packing
        self.held_out_rows = list(make_rows(self.held_out, length, pack=pack))
        if not self.held_out_rows:
            raise ValueError(f"no held-out conversation fits into {length} tokens")
        self.trainer = Trainer(self.trainable, self._plan(training))
        self.writer = CheckpointWriter(
            kit.checkpoint_dir(), self._digest, settings.keep_checkpoints, world.device
        )
        self.rounds: LocalRounds | GradientSum | None = None

    def _plan(self, training: list[Any]) -> list[Row]:
        settings = self.settings
        return plan_rows(
            len(training),
            lambda index: encode(training[index], self.trainable.tokenizer),
            settings.steps * settings.rows_per_step(self.world.total),
            length=settings.sequence_length,
            pack=settings.packing,
            seed=settings.seed,
        )

    def train(self) -> None:
        """Train from the newest checkpoint, or from the start."""
        self.world.log(f"engine: {self.trainer.engine.description}")
        state = agree_on_checkpoint(kit.checkpoint_dir(), self._digest, self.world)
        done = 0
        if state is not None:
            self.trainer.restore(state["trainer"])
            self.recorder.restore(state["recorder"])
            done = state.get("step", len(self.recorder.steps))
        place = place_of_node()
        if place is not None:
            self.rounds = self._rounds(place, done)
            done = self.rounds.begin(done)
        if done:
            self.world.log(f"resumed after step {done}")
        else:
            self._evaluate(0)
        saving = saving_on_term(self._save_last) if self.world.leads_node else nullcontext()
        with closing(self.trainer.prefetcher), saving:
            if self.rounds is None:
                self._train_with_all(done)
            else:
                self.rounds.train(done)
        self.recorder.window.end()
        if self.settings.steps not in self.recorder.eval_losses:
            self._evaluate(
                self.settings.steps
            )  # it was asked to end between this and the last step

    def _train_with_all(self, done: int) -> None:
        """With collectives between all ranks."""
        train(
            self.trainer,
            done=done,
            before_step=self.recorder.before_step,
            note=self._note,
            after_step=self._after_step,
        )

    def _note(self, record: StepRecord) -> None:
        self.recorder.add_step(record)
        self.recorder.count_tokens(record.tokens)

    @property
    def _digest(self) -> str:
        return self.settings.digest(self.world.total)

    def _rounds(self, place: Place, done: int) -> LocalRounds | GradientSum:
        """Without collectives between nodes."""
        together = hashlib.sha256(f"{self._digest} {self.data}".encode()).hexdigest()
        trained = sum(parameter.numel() for parameter in self.trainable.parameters)
        chosen = choose_exchange(self.trainer, done)
        why = f"; {chosen.why}" if chosen.why else ""
        if chosen.exchanged == "gradients":
            self.world.log(f"over SSH: the gradients of each step ({trained:,} parameters{why})")
            if unused := without_effect(self.settings):
                self.world.log(f"warning: no effect on gradients: {', '.join(unused)}")
            return GradientSum(
                self.trainer, self.recorder, place, together, after_step=self._after_step
            )
        every = steps_in_round(self.settings.round_steps, trained)
        self.world.log(f"over SSH: changes of {trained:,} parameters, every {every} steps{why}")
        return LocalRounds(
            self.trainer,
            self.recorder,
            place,
            together,
            evaluate=self._evaluate,
            save=self._save_checkpoint,
        )

    def _evaluate(self, step: int) -> None:
        self.recorder.window.pause()
        self.recorder.add_eval_loss(step, mean_loss(self.trainer, self.held_out_rows))

    def _after_step(self, step: int) -> None:
        last = step == self.settings.steps
        if last or _due(step, self.settings.eval_every):
            self._evaluate(step)
        if last or _due(step, self.settings.checkpoint_every):
            self._save_checkpoint(step, self.trainer.state())

    def _save_checkpoint(self, step: int, trained: dict[str, Any]) -> None:
        self.recorder.window.pause()
        if self.world.leads_node:
            with self.trainer.changing:
                self._write(step, trained)

    def _save_last(self) -> None:
        """What was completed last, if that is not saved yet."""
        with self.trainer.changing:
            if self.rounds is None:
                done, trained = len(self.recorder.steps), self.trainer.state()
            else:
                done, trained = self.rounds.done, self.rounds.state()
            if done > self.writer.newest:
                self._write(done, trained)
            self.writer.finish()  # also one that was under way already

    def _write(self, step: int, trained: dict[str, Any]) -> None:
        """Where nothing changes meanwhile."""
        state: dict[str, Any] = {"trainer": trained, "recorder": self.recorder.state()}
        own = self.rounds is not None and self.rounds.own
        if own:
            state["step"] = step
        self.writer.write(step, state, own=own)

    def conclude(self) -> None:
        """Score function calls, save everything, and check that the adapter can be loaded. Of nodes
        that trained by themselves one does it for all.
        """
        self.writer.finish()
        if self.rounds is not None and not self.rounds.client.reporting:
            return
        samples = answer_prompts(self.trainable, self.held_out)
        figures = self.recorder.figures()
        if self.rounds is not None:
            figures |= self.rounds.figures()
        per_rank, _ = figures["tokens_per_s_per_rank"]
        figures |= arithmetic_figures(self.trainable.model, self.world, per_rank)
        if samples:
            figures["function_call_exact_match"] = (exact_match(samples), "fraction")
        self._explain_missing(figures)
        figures["trainable_parameters"] = (
            sum(parameter.numel() for parameter in self.trainable.parameters),
            "parameters",
        )
        figures |= self._node_figures() | text_figures(self.trainer.rows)
        peak = self.world.max(peak_memory_bytes(self.world.device))
        figures["peak_memory_bytes"] = (peak, "bytes")
        if not self.world.is_main:
            for _ in range(RELOAD_PASSES):  # the main rank's; see `_save_adapter`
                self.trainer.engine.accompany()
            return
        output = kit.output_dir()
        self.recorder.write_curve(output / "loss.jsonl")
        write_lines(output / "eval_samples.jsonl", map(asdict, samples))
        figures["adapter_reload_max_logit_difference"] = (self._save_adapter(output), "logits")
        for name, (value, unit) in figures.items():
            kit.metric(name, value, unit)
        for file in ("loss.jsonl", "eval_samples.jsonl"):
            kit.artifact(output / file)

    def _node_figures(self) -> dict[str, tuple[float, str]]:
        """Where nodes can be compared: each rank has as many rows and waits for others only for
        their gradients; CPUs are used by others, too.
        """
        equal = self.trainer.rows_per_step % self.world.size == 0
        if not equal or self.trainer.engine.in_step or self.world.device.type != "cuda":
            return {}
        node = os.environ.get("ORCHESTRATE_NODE") or socket.gethostname()
        return node_figures(self.world, node, self.recorder.own_step_s())

    def _explain_missing(self, figures: Mapping[str, Any]) -> None:
        """A line for each figure that this run cannot have."""
        if "watts" not in figures:
            energy = self.recorder.window.energy
            reason = (
                "; ".join(energy.problems) if energy is not None else "another rank asks for it"
            )
            self.world.log(f"watts and tokens_per_joule are not reported: {reason}")
        if "function_call_exact_match" not in figures:
            reason = "no held-out conversation ends in a function call"
            self.world.log(f"function_call_exact_match is not reported: {reason}")

    def _save_adapter(self, output: Path) -> float:
        """Save, reload, compare; raises `TrainingFailed` if the loaded adapter acts differently."""
        save_adapter(self.trainable, output / "adapter")
        alone = Trainable(
            model=self.trainable.model,
            tokenizer=self.trainable.tokenizer,
            world=World(rank=0, local_rank=0, size=1, device=self.world.device),
            settings=self.settings,
        )
        batch = collate_for(alone, self.held_out_rows[: self.trainer.micro_batch])
        difference = reload_difference(alone, output / "adapter", batch.to(self.world.device))
        tolerance = RELOAD_TOLERANCE[self.settings.dtype]
        if not difference <= tolerance:
            raise TrainingFailed(
                f"the saved adapter does not give the trained model: a logit differs by "
                f"{difference:.3g}, more than {tolerance:g}"
            )
        for file in sorted((output / "adapter").iterdir()):
            kit.artifact(file)
        return difference


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _out_of_memory(error: BaseException) -> bool:
    text = str(error)
    on_cpu = isinstance(error, RuntimeError) and "can't allocate memory" in text
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or on_cpu


def _last_words(error: BaseException, settings: Settings) -> str:
    """One line for the end of stderr: which rank, what happened, what to do."""
    where = f"finetune: rank {kit.rank()}"
    if not _out_of_memory(error):
        first, *_ = str(error).splitlines() or [""]
        return f"{where}: {type(error).__name__}: {first}"
    remedy = (
        "lower --micro-batch (auto finds the largest that fits) or --sequence-length, "
        "or add --gradient-checkpointing, or --oom retry, or --engine fused --shard on"
    )
    return (
        f"{where}: out of memory with --micro-batch {settings.micro_batch} "
        f"--sequence-length {settings.sequence_length}: {remedy}"
    )


def main() -> None:
    """Run as the command line says; any failure ends this rank at once with status 1."""
    settings = kit.parse(Settings)
    gc.disable()  # a fifth of the time to import transformers and peft, which leave no garbage
    try:
        with joined_world(settings.device, settings.collective_timeout) as world:
            run = Run(settings, world)
            gc.freeze()  # what is there now stays, and is not looked at again
            gc.enable()
            run.train()
            run.conclude()
            world.barrier()
    except (Exception, MemoryError) as error:  # noqa: BLE001 - printed, and the process ends here
        traceback.print_exc()
        print(_last_words(error, settings), file=sys.stderr, flush=True)
        _leave(1)
    _leave(0)


def _leave(code: int) -> None:
    """End now. Destructors of a broken process group may wait for the other ranks, and torch's
    threads have aborted an interpreter that was done ("terminate called without an active
    exception"): a result that is complete must not end as a failure.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
