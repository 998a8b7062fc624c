#!/usr/bin/env python3
"""Acceptance test of GPUs, their memories, links and network, on one rank or many.

    python acceptance.py
    torchrun --nproc-per-node 8 acceptance.py --max-bytes 17179869184

One rank for each GPU. Without GPUs the same measurements run at small sizes, and nothing is gated.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

if not __package__:  # a script: its folder is a package then, too, and the kit lies beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = Path(__file__).resolve().parent.name

import torch

import orchestrate_kit as kit

from .base.options import Options
from .base.ranks import Ranks, joined_ranks
from .judge.evidence import Evidence
from .judge.judging import judge_evidence
from .judge.limits import Limits
from .judge.measurements import overall_verdict
from .measure import (
    collectives,
    concurrency,
    gpu_health,
    launches,
    network_ports,
    patterns,
    products,
    streams,
    throughput,
    transfers,
)
from .measure.shapes import Shape
from .show.report_sections import report, table_lines
from .show.results import metrics, result_object

PAIRS_S = 120.0
PAIRS = Path(__file__).with_name("measure") / "pairs.py"
PHASES = (
    "health",
    "products",
    "sustained",
    "memory",
    "patterns",
    "launches",
    "copies",
    "pairs",
    "collectives",
    "together",
    "training",
)


class Acceptance:
    """One test: every rank measures its part; rank 0 judges all of them."""

    def __init__(self, options: Options, ranks: Ranks) -> None:
        self.ranks = ranks
        self.options = options if ranks.cuda else options.for_cpu()
        self.uuid = _uuid(ranks.device)
        self.facts = kit.facts()
        self.part: dict[str, Any] = {
            "rank": ranks.rank,
            "node": ranks.node,
            "local_rank": ranks.local_rank,
            "leads_node": ranks.leads_node,
            "gpu": torch.cuda.get_device_name(ranks.device) if ranks.cuda else "",
            "uuid": self.uuid,
            "ports": network_ports.active_ports(self.facts) if ranks.leads_node else [],
        }
        self._done = 0

    def measure(self) -> dict[str, Any]:
        """Everything, in the same order on every rank."""
        ranks, device = self.ranks, self.ranks.device
        before = self._state()
        uuids = ranks.gather(self.uuid)
        telemetry = gpu_health.Telemetry(uuids) if self._watches else None
        if telemetry:
            telemetry.start()
        with kit.measured_window(str(device)):
            self._measure_load()
        samples = telemetry.stop() if telemetry else []
        self._begin_phase("health")
        self._health(before, self._state(), samples)
        return self.part

    def _measure_load(self) -> None:
        """All that loads the GPUs."""
        ranks, options, device = self.ranks, self.options, self.ranks.device
        self._begin_phase("products")
        for kind in products.DTYPES:
            self.part[f"matmul_{kind}"] = self._product(kind)
        self._begin_phase("sustained product")
        self._alone("sustained", lambda: products.sustain(device, options))
        self._begin_phase("memory")
        self._alone("memory", lambda: streams.measure(device, options))
        self._begin_phase("patterns in memory")
        self._alone("patterns", lambda: patterns.measure(device, options))
        self._begin_phase("launches")
        self._alone("launches", lambda: launches.measure(device))
        self._begin_phase("copies")
        self._in_turn("copies", lambda: transfers.measure(device, options))
        self._pairs()
        self._begin_phase("collectives")
        self.part["collectives"] = collectives.sweep(ranks, options, self._log)
        self._empty()
        self._begin_phase("communication beside products")
        self.part["together"] = concurrency.measure(ranks, options)
        self._empty()
        self._begin_phase("training")
        self.part["training"] = throughput.measure(ranks, options, self._log)

    @property
    def _watches(self) -> bool:
        return self.ranks.leads_node and self.ranks.cuda

    def _state(self) -> dict[str, Any]:
        """The node's GPUs, asked once by the rank that leads it."""
        self.ranks.meet()
        return gpu_health.state(self.facts) if self._watches else {"gpus": {}, "unseen": ""}

    def _health(
        self, before: dict[str, Any], after: dict[str, Any], samples: list[dict[str, Any]]
    ) -> None:
        """Every rank takes what the rank that leads its node saw of its GPU."""
        seen = (self.ranks.node, before, after, samples) if self._watches else None
        for one in filter(None, self.ranks.gather(seen)):
            if one[0] == self.ranks.node:
                self.part["health"] = {
                    "before": one[1]["gpus"].get(self.uuid),
                    "after": one[2]["gpus"].get(self.uuid),
                    "samples": [sample for sample in one[3] if sample["uuid"] == self.uuid],
                    "unseen": one[1]["unseen"] or one[2]["unseen"],
                    "source": one[2].get("source", ""),
                }

    def _product(self, kind: str) -> dict[str, Any]:
        """Each GPU searches for itself; then all measure the shapes that were fast on any."""
        device, options = self.ranks.device, self.options
        reason = products.can_multiply(kind, device)
        if reason:
            return {"not_run": reason, "expected": False}
        self.ranks.meet()
        searched = attempt(lambda: {"shapes": products.find_shapes(kind, device, options)})
        everywhere: list[Shape] = [
            shape for found in self.ranks.gather(searched) for shape in found.get("shapes", ())
        ]
        finalists = list(dict.fromkeys(everywhere))
        self._empty()
        if "not_run" in searched:
            return searched
        return attempt(lambda: products.measure(finalists, kind, device, options))

    def _alone(self, key: str, work: Callable[[], dict[str, Any]]) -> None:
        """All ranks at the same time, each by itself."""
        self.ranks.meet()
        self.part[key] = attempt(work)
        self._empty()

    def _in_turn(self, key: str, work: Callable[[], dict[str, Any]]) -> None:
        """The ranks of a node one after the other, so that they do not share what they measure."""
        if not self.ranks.cuda:
            self.part[key] = {"not_run": "no GPU", "expected": False}
            return
        for turn in range(max(self.ranks.gather(self.ranks.local_size))):
            self.ranks.meet()
            if turn == self.ranks.local_rank:
                self.part[key] = attempt(work)
        self._empty()

    def _pairs(self) -> None:
        """The rank that leads the node measures its pairs while the others wait idle."""
        self._begin_phase("pairs")
        self.ranks.meet()
        if self.ranks.leads_node:
            self.part["pairs"] = self._matrix()
        self.ranks.meet()

    def _matrix(self) -> dict[str, Any]:
        if not self.ranks.cuda:
            return {"not_run": "no GPU", "expected": False}
        if torch.cuda.device_count() < 2:
            return {"not_run": "only one GPU", "expected": False}
        return attempt(lambda: measure_pairs(self.options.copy_mib))

    def _empty(self) -> None:
        if self.ranks.cuda:
            torch.cuda.empty_cache()

    def _begin_phase(self, phase: str) -> None:
        self._log(phase)
        if self.ranks.is_main:
            kit.progress(self._done, len(PHASES), "phase", now=phase)
        self._done += 1

    def _log(self, text: str) -> None:
        if self.ranks.is_main:
            print(f"acceptance: {text}", flush=True)


def attempt(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``work`` measured, or why it could not: one figure must not cost the others."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - whatever it is, the figure says it and does not pass
        traceback.print_exc()
        first, *_ = str(error).splitlines() or [""]
        return {"not_run": f"{type(error).__name__}: {first[:300]}", "expected": True}


def measure_pairs(mib: int) -> dict[str, Any]:
    """Raises ``RuntimeError`` with the last line of the process that measures."""
    argv = [sys.executable, str(PAIRS), "--mib", str(mib)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PAIRS_S, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no output"]
        raise RuntimeError(f"pairs.py ended with {done.returncode}: {last[0]}")
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def conclude(evidence: Evidence, options: Options, ranks: Ranks) -> None:
    """Rank 0: judge, write what was found, and report the figures."""
    found = judge_evidence(evidence)
    verdict = overall_verdict(found, gpu=bool(evidence.gpu))
    result = result_object(evidence, found, verdict, asdict(options))
    output = kit.output_dir()
    for name, content in (
        ("acceptance.json", result),
        ("report_sections.json", report(evidence, found, verdict)),
    ):
        write_json(output / name, content)
        kit.artifact(output / name)
    print("\n".join(table_lines(found)), flush=True)
    print(f"acceptance of {len(ranks.nodes)} nodes: {verdict[1]}", flush=True)
    for name, value, unit in metrics(found):
        kit.metric(name, value, unit)


def write_part(parts: list[dict[str, Any]], ranks: Ranks) -> None:
    """The rank that leads a node keeps there what was measured there."""
    path = kit.output_dir() / f"acceptance-{_file_name(ranks.node)}.json"
    here = [part for part in parts if part["node"] == ranks.node]
    write_json(path, {"schema_version": 1, "node": ranks.node, "ranks": here})
    kit.artifact(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """A file that appears complete or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
    partial.replace(path)


def _file_name(node: str) -> str:
    return "".join(char if char.isalnum() or char in "-_." else "_" for char in node)


def _uuid(device: torch.device) -> str:
    """As NVML writes it; empty on a CPU."""
    if device.type != "cuda":
        return ""
    return f"GPU-{getattr(torch.cuda.get_device_properties(device), 'uuid', '')}"


def main() -> None:
    """Run as the command line says; any failure ends this rank at once with status 1."""
    options = kit.parse(Options)
    try:
        with joined_ranks(options.device, options.collective_timeout) as ranks:
            test = Acceptance(options, ranks)
            parts = ranks.gather(test.measure())
            if ranks.leads_node:
                write_part(parts, ranks)
            if ranks.is_main:
                evidence = Evidence(parts=parts, limits=Limits.load(), environment=dict(os.environ))
                conclude(evidence, test.options, ranks)
            ranks.meet()
    except (Exception, MemoryError) as error:  # noqa: BLE001 - printed, and the process ends here
        traceback.print_exc()
        first, *_ = str(error).splitlines() or [""]
        print(f"acceptance: rank {kit.rank()}: {type(error).__name__}: {first}", file=sys.stderr)
        _leave(1)
    _leave(0)


def _leave(code: int) -> None:
    """End now: destructors of a broken process group may wait for the other ranks."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
