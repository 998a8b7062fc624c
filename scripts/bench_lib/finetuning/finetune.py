"""Fine-tuning: our trainer against the usual transformers + peft script, on the same model."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, MutableSequence, Sequence
from pathlib import Path
from typing import Any

from bench_lib.base.errors import BenchError
from bench_lib.base.report import table
from bench_lib.base.rounds import say

from .timeline import PRODUCTS

RANKS = Path(__file__).parents[1] / "programs" / "finetune_ranks.py"
GOAL = 2.85  # tokens/s for each GPU, against the usual script with checkpointing
GOAL_IN_LESS = 2.7  # the same with a limit of memory
LIMIT_S = 560
ENDING_S = 20
SHOWN_STEPS = 20
GIB = 2**30


def finetune(
    python: str, ranks: int, options: Sequence[str], records: MutableSequence[dict[str, Any]]
) -> None:
    """Adds everything that was measured to ``records``, in order, also of a run that was cut off or
    stopped. Raises BenchError when that is no side at all.
    """
    say(f"finetune: at most {LIMIT_S / 60:.0f} minutes; each side is told when it is measured")
    with tempfile.TemporaryDirectory(prefix="orchestrate-bench-") as scratch:
        out = Path(scratch, "figures.jsonl")
        try:
            code = run_ranks(python, ranks, options, out, LIMIT_S)
        finally:
            found = read_records(out)
            if any(record["kind"] == "side" for record in found):
                records += found
    if not records:
        raise BenchError(f"no side was measured; the ranks ended with {code}")


def run_ranks(python: str, ranks: int, options: Sequence[str], out: Path, limit_s: float) -> int:
    """The exit code of the launcher of `ranks` ranks, which write to `out` within `limit_s`."""
    argv = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    return _run([*argv, str(ranks), str(RANKS), "--out", str(out), *options], limit_s)


def read_records(out: Path) -> list[dict[str, Any]]:
    """What ranks have written, but for a last line that they were not given time to end."""
    text = out.read_text(encoding="utf-8") if out.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _run(argv: Sequence[str], limit_s: float) -> int:
    """The launcher's exit code. One that is late is asked to end, so that it ends its ranks."""
    with subprocess.Popen(argv, stdout=sys.stderr) as launcher:
        try:
            return launcher.wait(limit_s)
        except BaseException as error:
            launcher.terminate()
            try:
                code = launcher.wait(ENDING_S)
            except subprocess.TimeoutExpired:
                launcher.kill()
                code = launcher.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return code


def finetune_markdown(records: Sequence[Mapping[str, Any]]) -> str:
    """The report: rates, memory, loss curves, and where a step's time goes."""
    machine = _one(records, "machine")
    arithmetic = _one(records, "arithmetic")
    sides = [record for record in records if record["kind"] == "side"]
    parts = [
        table(("what", "value"), [(key, str(value)) for key, value in machine.items()]),
        _rates(sides, arithmetic),
        _curves(sides),
        _bounds(records),
        *(_profile(record, arithmetic) for record in records if record["kind"] == "profile"),
        *(f"{r['name']} failed: {r['reason']}" for r in records if r["kind"] == "failed"),
    ]
    if not any(record["kind"] == "end" for record in records):
        parts.append("The run was cut off: these are its figures up to then.")
    return "\n\n".join(part for part in parts if part) + "\n"


def met(records: Sequence[Mapping[str, Any]]) -> bool:
    """Whether ours is as fast as it should be; a benchmark on CPUs has no target."""
    rates = {r["name"]: r["tokens_per_s_per_gpu"] for r in records if r["kind"] == "side"}
    machine = _one(records, "machine")
    if machine.get("device") == "CPU":
        return True
    goal = GOAL_IN_LESS if machine.get("memory_limit_gib") else GOAL
    return "ours" in rates and "usual" in rates and rates["ours"] >= goal * rates["usual"]


def _one(records: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any]:
    for record in records:
        if record["kind"] == kind:
            return {key: value for key, value in record.items() if key != "kind"}
    return {}


def _rates(sides: Sequence[Mapping[str, Any]], arithmetic: Mapping[str, Any]) -> str:
    usual = next((s["tokens_per_s_per_gpu"] for s in sides if s["name"] == "usual"), None)
    rows = []
    for side in sides:
        rate = side["tokens_per_s_per_gpu"]
        flops = rate * arithmetic["flop_per_token"] / 1e12
        peak = arithmetic["product_tflops"]
        rows.append(
            (
                side["name"],
                f"{rate:,.0f} ({side['lowest']:,.0f}..{side['highest']:,.0f})",
                "" if usual is None else f"{rate / usual:.2f}",
                f"{flops:.3g}",
                "" if peak is None else f"{flops / peak:.1%} of {peak:.0f}",
                "" if side["peak_bytes"] is None else f"{side['peak_bytes'] / GIB:.1f}",
                side["engine"],
            )
        )
    headings = (
        "side",
        "tokens/s per GPU",
        "ratio",
        "TFLOP/s (4N + 6 adapter)",
        "of a bf16 product here",
        "peak GiB",
        "engine",
    )
    return table(headings, rows)


def _bounds(records: Sequence[Mapping[str, Any]]) -> str:
    """How much of what products and attention alone allow each side reaches."""
    rates = {r["name"]: r["tokens_per_s_per_gpu"] for r in records if r["kind"] == "side"}
    found = [record for record in records if record["kind"] == "bound"]
    if not found:
        return ""
    rows = [
        (
            record["name"],
            f"{record['products_s']:.3f}",
            f"{record['attention_s']:.3f}",
            f"{record['tokens_per_s_per_gpu']:,.0f}",
            f"{rates[record['name']] / record['tokens_per_s_per_gpu']:.3f}",
        )
        for record in found
    ]
    headings = ("alone, in a step of", "products, s", "attention, s", "tokens/s", "reached")
    return table(headings, rows)


def _curves(sides: Sequence[Mapping[str, Any]]) -> str:
    """At most about twenty steps of them, and how far apart they are, also at the end."""
    names = [side["name"] for side in sides]
    curves = [side["losses"] for side in sides]
    count = min(map(len, curves))
    every = -(-count // SHOWN_STEPS)
    rows = [
        (str(step), *(f"{losses[step - 1]:.4f}" for losses in curves))
        for step in range(1, count + 1)
        if step % every == 0 or step in {1, count}
    ]
    parts = [table(("loss at step", *names), rows)]
    last = max(1, count // 10)
    for name, losses in zip(names[1:], curves[1:], strict=True):
        apart = max(abs(b / a - 1) for a, b in zip(curves[0], losses, strict=False))
        ends = [statistics.fmean(curve[count - last : count]) for curve in (curves[0], losses)]
        parts.append(
            f"{name} against {names[0]}: largest difference {apart:.3%}; mean of the last {last}"
            f" steps {ends[1]:.4f} against {ends[0]:.4f}, {ends[1] / ends[0] - 1:+.3%}."
        )
    return "\n\n".join(parts)


def _profile(record: Mapping[str, Any], arithmetic: Mapping[str, Any]) -> str:
    span, seconds = record["span_s"], record["seconds"]
    spent = sorted(seconds.items(), key=lambda item: -item[1])
    spent.append(("nothing runs", span - record["busy_s"]))
    rows = [(name, f"{s:.3f}", f"{s / span:.1%}") for name, s in spent]
    slowest = "\n".join(f"{s:9.4f} s  {count:6} x  {key}" for s, count, key in record["slowest"])
    parts = [
        f"One step of {record['name']}: {span:.3f} s from its first kernel to its last.",
        table(("what", "s", "share"), rows),
        _of_products(record, arithmetic),
        f"```text\n{slowest}\n```",
    ]
    return "\n\n".join(part for part in parts if part)


def _of_products(record: Mapping[str, Any], arithmetic: Mapping[str, Any]) -> str:
    """What is computed again is no use, and lowers this rate."""
    seconds = record["seconds"].get(PRODUCTS, 0.0)
    if not seconds:
        return ""
    rate = record["tokens"] * arithmetic["flop_per_token"] / seconds / 1e12
    return (
        f"Useful arithmetic (4N + 6 adapter) in the time of the matrix products: {rate:.3g}"
        f" TFLOP/s. Communication that nothing hides: {record['exposed_s']:.3f} s."
    )
