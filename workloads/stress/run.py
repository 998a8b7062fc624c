#!/usr/bin/env python3
"""Load on every GPU and every link for a time, with each result checked.

    python run.py
    torchrun --nproc-per-node 4 run.py --seconds 60 --width 8192 --message-mib 1024

Products run while a message is summed over all ranks. Rank 0 writes stress.json; a wrong element is
named there and on stderr, with its GPU and its place.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # a script: its folder is a package then, too, and the kit lies beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = Path(__file__).resolve().parent.name

import torch

import orchestrate_kit as kit
from orchestrate_models.devices import device_name
from orchestrate_models.memory_fit import require_fit
from orchestrate_models.outputs import Figures, report_figures, write_document
from orchestrate_models.ranks import Ranks, run_on_ranks

from .counters import Counters, predicted_bytes, summary
from .load import Findings, Load, memory_need, run_load
from .settings import Settings

RESULT = "stress.json"
Report = Mapping[str, Any]


def run(settings: Settings, ranks: Ranks) -> None:
    """Load, check, report. Raises ``UnusableSettings`` before anything is made."""
    need = memory_need(settings.width, settings.message_mib * 2**20, ranks.device)
    require_fit(need, ranks.device, ranks.local_size, "set a smaller --width or --message-mib")
    load = Load(settings, ranks)
    gpu = gpu_uuid(ranks.device)
    counters = Counters(gpu) if gpu else None
    progress = partial(kit.progress, total=settings.seconds, unit="s")
    with kit.measured_window(str(ranks.device)):
        findings = run_load(load, settings, ranks, progress)
        ranks.meet()
    if counters:
        counters.stop()
    mine = report_of_rank(ranks, gpu, findings, counters)
    complain(mine)
    reports = ranks.gather(mine)
    if ranks.rank == 0:
        predicted = predicted_bytes(load.message_bytes, ranks.size, load.sums)
        report_figures(figures_of(reports, predicted))
        document = {
            "schema_version": 1,
            "settings": asdict(settings),
            "message_bytes": load.message_bytes,
            "predicted_sent_bytes": predicted,
            "ranks": reports,
        }
        write_document(RESULT, document)


def gpu_uuid(device: torch.device) -> str:
    """As NVML writes it; empty of a CPU."""
    if device.type != "cuda":
        return ""
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"


def report_of_rank(
    ranks: Ranks, gpu: str, findings: Findings, counters: Counters | None
) -> dict[str, Any]:
    samples = counters.samples if counters else []
    return {
        "rank": ranks.rank,
        "node": os.environ.get("ORCHESTRATE_NODE") or socket.gethostname(),
        "device": str(ranks.device),
        "name": device_name(ranks.device),
        "gpu": gpu,
        **asdict(findings),
        "telemetry": summary(samples),
        "no_telemetry": counters.why_not if counters else "the job computes on a CPU",
        "samples": [asdict(sample) for sample in samples],
    }


def complain(report: Report) -> None:
    """One line on stderr for each wrong element that is named."""
    where = f"{report['node']}: {report['gpu'] or report['device']} (rank {report['rank']})"
    for one in report["named"]:
        print(
            f"stress: {where}: wrong {one['what']} at {list(one['position'])}: "
            f"{one['found']!r} in place of {one['expected']!r}",
            file=sys.stderr,
            flush=True,
        )


def figures_of(reports: Sequence[Report], predicted: float) -> Figures:
    """Of all ranks; what no GPU said is left out. NVLink is judged only where all of its traffic
    stayed on one node.
    """
    rates = [statistics.median(report["rates"]) for report in reports]
    last = [report["rates"][-1] / statistics.median(report["rates"]) for report in reports]
    told = [report["telemetry"] for report in reports]
    figures: Figures = {
        "wrong_elements": (sum(report["wrong"] for report in reports), "elements"),
        "products": (sum(report["products"] for report in reports), "products"),
        "tflops": (min(rates), "TFLOPS"),
        "slowest_gpu": (min(rates) / statistics.median(rates), "of median"),
        "last_window": (min(last), "of median"),
    }
    watts = [each["mean_watts"] for each in told if "mean_watts" in each]
    if len(watts) == len(reports):
        figures["watts"] = (sum(watts), "W")
    for name, key, choose, unit in (
        ("peak_watts", "peak_watts", max, "W"),
        ("least_sm_clock", "least_sm_mhz", min, "MHz"),
        ("hottest", "hottest_celsius", max, "C"),
        ("slowed_samples", "slowed_samples", sum, "samples"),
    ):
        values = [each[key] for each in told if key in each]
        if values:
            figures[name] = (choose(values), unit)
    sent = [each["nvlink_sent_bytes"] for each in told if each.get("nvlink_sent_bytes")]
    if len(sent) == len(reports) > 1 and len({report["node"] for report in reports}) == 1:
        seconds = max(report["seconds"] for report in reports)
        figures["nvlink_sent"] = (statistics.median(sent) / seconds / 1e9, "GB/s")
        figures["nvlink_over_formula"] = (statistics.median(sent) / predicted, "x")
    return figures


def main() -> None:
    """Run as the command line says; settings that cannot be used here end with status 2."""
    settings = kit.parse(Settings)
    run_on_ranks("stress", settings.device, partial(run, settings))


if __name__ == "__main__":
    main()
