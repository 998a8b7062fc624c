"""The table of LoRA throughput: what is measured, on how many GPUs, and the file it is kept in."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench_lib.base.errors import BenchError
from bench_lib.base.rounds import say

from .finetune import read_records, run_ranks

COLUMNS = (
    "model",
    "gpus",
    "lora_rank",
    "side",
    "tokens_per_s_per_gpu",
    "lowest",
    "highest",
    "steps",
    "of_usual",
    "mfu",
    "bound_tokens_per_s",
    "of_bound",
    "watts",
    "tokens_per_joule",
    "peak_gib",
    "loss_first",
    "loss_last",
    "loss_apart",
    "device",
    "torch",
    "date",
    "commit",
    "how",
)
KEY = ("device", "model", "gpus", "lora_rank", "side")
GIB = 2**30
REASON = 200  # characters
ALL_ROWS_BYTES = 135 * GIB  # that hold what 8 rows of 4096 tokens keep
LEAST_S = 60.0  # a run that has less is not begun
PEER_S = 150.0  # for one in a process of its own, which may compile for longer
STEPS = ("--steps", "7", "--warmup", "2")
GPUS = """
import torch
count = torch.cuda.device_count()
print(count, torch.cuda.get_device_properties(0).total_memory if count else 0)
"""
Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Planned:
    """One start of the ranks: sides in turn, on one model."""

    model: str
    gpus: int
    lora_rank: int
    sides: tuple[str, ...]
    options: tuple[str, ...] = ()
    limit_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Plan:
    """What a machine of so many GPUs is asked for; no GPU: a tiny model on a CPU."""

    gpus: int
    memory_bytes: int  # of each
    lora_ranks: tuple[int, ...]
    models: tuple[str, ...] | None
    unsloth: bool
    commit: str

    def runs(self) -> Iterator[Planned]:
        """In the order of what is most worth knowing."""
        everything = list(self._tiny() if self.gpus == 0 else self._all())
        for run in everything:
            if self.models is None or run.model in self.models:
                yield run

    def _tiny(self) -> Iterator[Planned]:
        for rank in self.lora_ranks:
            sides = ("usual", "tuned", "ours", "ours, fp8")
            yield Planned("tiny", 1, rank, sides, ("--length", "64", "--rows", "2", "--bound"))

    def _all(self) -> Iterator[Planned]:
        sides = ("usual", "tuned", "ours", "ours, fp8")
        for gpus in (1, 2, 4):
            if gpus <= self.gpus:
                for rank in self.lora_ranks:
                    yield Planned("qwen2-7b", gpus, rank, sides, (*self._rows(), "--bound"))
                    if self.unsloth and gpus == 1:
                        yield Planned("qwen2-7b", gpus, rank, ("unsloth",), limit_s=PEER_S)
        for model in ("qwen2.5-32b", "qwen2.5-72b") if self.gpus >= 4 else ():
            for rank in self.lora_ranks:
                options = ("--micro-batch", "2", "--rows", "4")
                if model == "qwen2.5-32b":
                    yield Planned(model, 4, rank, ("usual", "tuned"), ("--rows", "4"))
                yield Planned(model, 4, rank, ("ours",), (*options, "--shared"))

    def _rows(self) -> tuple[str, ...]:
        """Micro-batches of ours, of a model of 7B: as large as they are faster with."""
        if self.memory_bytes >= ALL_ROWS_BYTES:
            return ("--micro-batch", "8", "--recompute", "none")
        return ("--micro-batch", "2")


def fill(plan: Plan, python: str, path: Path, *, budget_s: float, log: Path | None = None) -> bool:
    """Measure what is planned within `budget_s`, and bring the table up to date after each run,
    also after one that is stopped. Whether all of it was measured.
    """
    ends = time.monotonic() + budget_s
    whole = True
    with tempfile.TemporaryDirectory(prefix="orchestrate-bench-") as scratch:
        for number, run in enumerate(plan.runs()):
            left = ends - time.monotonic()
            if left < LEAST_S:
                say(f"{_named(run)}: not begun, {left:.0f} s are left")
                whole = False
                continue
            options = [*_options(run), *_folder(run, plan, Path(scratch, run.model))]
            out = Path(scratch, f"figures-{number}.jsonl")
            try:
                code = run_ranks(python, run.gpus, options, out, min(left, run.limit_s))
            finally:
                records = read_records(out)
                _keep(records, log)
                write_rows(path, merged(read_rows(path), rows_of(run, records, plan.commit)))
            whole &= code == 0 and not any(r["kind"] == "failed" for r in records)
    return whole


def _keep(records: Sequence[Mapping[str, Any]], log: Path | None) -> None:
    """All that ranks have told, line by line, after what is there."""
    if log is not None:
        with log.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(record) + "\n" for record in records)


def _named(run: Planned) -> str:
    return f"{run.model} on {run.gpus}, rank {run.lora_rank}: {', '.join(run.sides)}"


def _options(run: Planned) -> list[str]:
    options = ["--model", run.model, "--lora-rank", str(run.lora_rank), *STEPS, *run.options]
    return [*options, "--sides", *run.sides]


def _folder(run: Planned, plan: Plan, folder: Path) -> list[str]:
    """unsloth reads the model from files, which the run before it puts there."""
    wanted = plan.unsloth and plan.gpus > 0 and run.gpus == 1
    return ["--folder", str(folder)] if wanted else []


def rows_of(run: Planned, records: Sequence[Mapping[str, Any]], commit: str) -> list[Row]:
    """A row for each side that was measured, and for each that failed, which has no figures."""
    machine = _first(records, "machine")
    arithmetic = _first(records, "arithmetic")
    bounds = {r["name"]: r["tokens_per_s_per_gpu"] for r in records if r["kind"] == "bound"}
    rows = []
    for side in (record for record in records if record["kind"] in {"side", "failed"}):
        measured = side["kind"] == "side"
        figures = _figures(side, arithmetic, bounds.get(side["name"])) if measured else {}
        rows.append(
            {
                **dict.fromkeys(COLUMNS, ""),
                "model": run.model,
                "gpus": str(run.gpus if machine.get("device") != "CPU" else 0),
                "lora_rank": str(run.lora_rank),
                "side": side["name"] + (", shared weights" if "--shared" in run.options else ""),
                **figures,
                "device": str(machine.get("device", "")),
                "torch": str(machine.get("torch", "")),
                "date": datetime.now(UTC).date().isoformat(),
                "commit": commit,
                "how": side["engine"] if measured else f"failed: {_one_line(side['reason'])}",
                "losses": " ".join(f"{loss:.5f}" for loss in side.get("losses", ())),
            }
        )
    return rows


def _one_line(reason: str) -> str:
    """The end of a reason says most."""
    return " ".join(reason.split())[-REASON:]


def _figures(
    side: Mapping[str, Any], arithmetic: Mapping[str, Any], bound: float | None
) -> dict[str, str]:
    rate, peak = side["tokens_per_s_per_gpu"], arithmetic.get("peak_flops")
    mfu = rate * arithmetic["flop_per_token"] / peak if peak else None
    memory = side["peak_bytes"]
    return {
        "tokens_per_s_per_gpu": f"{rate:.0f}",
        "lowest": f"{side['lowest']:.0f}",
        "highest": f"{side['highest']:.0f}",
        "steps": str(side["steps"]),
        "mfu": _number(mfu, ".4f"),
        "bound_tokens_per_s": _number(bound, ".0f"),
        "of_bound": _number(None if bound is None else rate / bound, ".3f"),
        "watts": _number(side["watts"], ".0f"),
        "tokens_per_joule": _number(side["tokens_per_joule"], ".2f"),
        "peak_gib": _number(None if memory is None else memory / GIB, ".1f"),
        "loss_first": f"{side['losses'][0]:.4f}",
        "loss_last": f"{side['losses'][-1]:.4f}",
    }


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _first(records: Sequence[Mapping[str, Any]], kind: str) -> Mapping[str, Any]:
    return next((record for record in records if record["kind"] == kind), {})


def merged(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """Rows that were measured again replace those of before; each is compared with the usual
    script's of the same machine, model and rank.
    """
    found = {_key(row): row for row in (*old, *new)}
    rows = [_with_arithmetic(row, found) for row in found.values()]
    return [_compared(row, found) for row in rows]


def _key(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in KEY)


def _beside(row: Row, found: Mapping[tuple[str, ...], Row], side: str) -> Row | None:
    return found.get(_key(row | {"side": side}))


def _with_arithmetic(row: Row, found: Mapping[tuple[str, ...], Row]) -> Row:
    """A side in a process of its own does not count the model's arithmetic: as of the usual."""
    usual = _beside(row, found, "usual")
    if row["mfu"] or not _has_rate(row) or usual is None or not usual["mfu"]:
        return row
    each = float(usual["mfu"]) / float(usual["tokens_per_s_per_gpu"])
    return row | {"mfu": f"{float(row['tokens_per_s_per_gpu']) * each:.4f}"}


def _has_rate(row: Row) -> bool:
    return bool(row["tokens_per_s_per_gpu"])


def _compared(row: Row, found: Mapping[tuple[str, ...], Row]) -> Row:
    usual = _beside(row, found, "usual")
    if usual is None or not (_has_rate(usual) and _has_rate(row)):
        return row | {"of_usual": "", "loss_apart": ""}
    ratio = float(row["tokens_per_s_per_gpu"]) / float(usual["tokens_per_s_per_gpu"])
    curves = [[float(loss) for loss in own["losses"].split()] for own in (usual, row)]
    apart = max(abs(b / a - 1) for a, b in zip(*curves, strict=False))
    return row | {"of_usual": f"{ratio:.2f}", "loss_apart": f"{apart:.5f}"}


def read_rows(path: Path) -> list[Row]:
    """Those of the table so far; none where there is no table yet. Raises `BenchError`."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != (*COLUMNS, "losses"):
            raise BenchError(f"{path}: not a table of this benchmark; pass another --csv")
        return list(reader)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """The whole table, at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    with beside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, (*COLUMNS, "losses"), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: row.get(name, "") for name in writer.fieldnames} for row in rows)
    beside.replace(path)


def head_of_tree() -> str:
    """The commit that is checked out; nothing where the tree is a copy without a history."""
    argv = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=8", "HEAD"]
    found = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    return found.stdout.strip()


def found_gpus(python: str) -> tuple[int, int]:
    """How many GPUs `python`'s torch sees, and the bytes of the first. Raises `BenchError` where
    there is no torch.
    """
    found = subprocess.run(
        [python, "-c", GPUS], capture_output=True, text=True, timeout=120, check=False
    )
    if found.returncode:
        raise BenchError(f"{python} has no torch: {found.stderr.strip().splitlines()[-1:]}")
    count, memory = map(int, found.stdout.split())
    return count, memory
