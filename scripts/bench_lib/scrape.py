"""A scrape of the metrics of a live run on many nodes: how long it takes, and how much memory."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from .base.errors import BenchError
from .base.report import table
from .history import run_program

if TYPE_CHECKING:
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.core.model.facts import Facts
    from orchestrator.core.run.events import Event

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).parent / "programs" / "scrape_home.py"
GPUS = 8  # of each node, with a rank each
LIMIT_S, LIMIT_MB = 0.3, 100.0
TIMEOUT_S = 1800.0
RUN = "live"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scraped:
    """``first_s``: the scrape that reads the journal from its beginning; ``median_s`` and
    ``worst_s``: of those after it; ``cpu_s``: processor time of the median one, which is what it
    takes on a quiet machine, for one thread does it. ``peak_mb``: of the whole process.
    """

    nodes: int
    series: int
    bytes: int
    first_s: float
    median_s: float
    worst_s: float
    cpu_s: float
    peak_mb: float

    @property
    def met(self) -> bool:
        return self.cpu_s <= LIMIT_S and self.peak_mb <= LIMIT_MB


def measure_scrapes(python: str, *, nodes: int, scrapes: int) -> Scraped:
    """Fill a home with a live run and scrape it in a process of its own. Raises ``BenchError``."""
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory(prefix="orchestrate-bench-") as scratch:
        home = Path(scratch, "home")
        in_another_process(partial(fill_run, home, nodes))
        claim_run(home)
        path = f"{ROOT}:{ROOT / 'scripts'}"
        argv = [python, "-P", PROGRAM, home, scrapes + 1]
        output, _ = run_program(argv, {"PYTHONPATH": path}, TIMEOUT_S)
    answer = json.loads(output)
    first, *later = answer["wall_s"]
    return Scraped(
        nodes=nodes,
        series=answer["series"],
        bytes=answer["bytes"],
        first_s=first,
        median_s=median(later),
        worst_s=max(later),
        cpu_s=median(answer["cpu_s"][1:]),
        peak_mb=answer["peak_mb"],
    )


def in_another_process(act: Callable[[], None]) -> None:
    """Whose memory is not this one's. Raises ``BenchError``."""
    pid = os.fork()
    if not pid:
        failed = 1
        try:
            act()
            failed = 0
        finally:
            os._exit(failed)
    if os.waitpid(pid, 0)[1]:
        raise BenchError("the run to scrape could not be made")


def claim_run(home: Path) -> None:
    """This process coordinates the run."""
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.adapters.store.liveness import identify_self, write_identity

    write_identity(Layout(home).run(RUN).coordinator, identify_self(1.0))


def fill_run(home: Path, nodes: int) -> None:
    """A run on ``nodes`` nodes of 8 GPUs, in mid-run."""
    from orchestrator.adapters.store.journal import Journal
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.core.base.codec import to_json

    layout = Layout(home)
    folder = layout.run(RUN)
    folder.create()
    request = {"cluster": {"name": "large"}, "job": {"workload": {"name": "finetune"}}}
    folder.request.write_text(json.dumps(request))
    names = [f"gpu{number:04d}" for number in range(nodes)]
    (home / "nodes.json").write_text(json.dumps(names))
    with Journal(folder.journal) as journal:
        for place, name in enumerate(names):
            events = _beginning(name, place * GPUS)
            journal.append_many((1.0 + place, to_json(event)) for event in events)
    advance_run(layout, 0)


def advance_run(layout: Layout, step: int) -> None:
    """Every rank reports a step, every node its energy."""
    from orchestrator.adapters.store.journal import Journal
    from orchestrator.adapters.store.metric_series import Point, SeriesWriter
    from orchestrator.core.base.codec import to_json

    folder, names = layout.run(RUN), json.loads((layout.home / "nodes.json").read_text())
    at = 2000.0 + step
    ranks = [
        {
            "node": name,
            "rank": place * GPUS + gpu,
            "done": step + 1,
            "total": 1000,
            "unit": "step",
            "at": at,
            "fields": {"loss": 1.5, "tokens_per_s": 1000.0 + step} if not gpu else {},
        }
        for place, name in enumerate(names)
        for gpu in range(GPUS)
    ]
    folder.progress.write_text(json.dumps({"attempt": 1, "ranks": ranks}))
    with Journal(folder.journal) as journal:
        reports = [_energy(name, place * GPUS, step) for place, name in enumerate(names)]
        journal.append_many((at, to_json(report)) for report in reports)
    writer = SeriesWriter(folder.metrics)
    writer.append_many([Point(names[0], 0, "train_loss", 1.5, "nats/token", step + 1, at)])
    writer.close()


def _beginning(name: str, first: int) -> Iterator[Event]:
    from orchestrator.core.run.events import Connected, Launched, Probed, RankStarted

    yield Connected(node=name, seconds=0.1)
    yield Probed(node=name, facts=_facts(name))
    yield Launched(node=name)
    for gpu in range(GPUS):
        yield RankStarted(node=name, rank=first + gpu, pid=1000 + gpu)


def _facts(name: str) -> Facts:
    from orchestrator.core.model.facts import Ecc, Facts, Gpu

    gpus = tuple(
        Gpu(
            index=index,
            name="NVIDIA H200",
            uuid=f"GPU-{name}-{index}",
            memory_bytes=141 << 30,
            memory_used_bytes=120 << 30,
            power_w=650.0,
            power_limit_w=700.0,
            temperature_c=61,
            throttle=(),
            ecc=Ecc(enabled=True, corrected=0, uncorrected=0, uncorrected_ever=0),
        )
        for index in range(GPUS)
    )
    return Facts(node=name, hostname=name, cpus=192, gpus=gpus, disk_free_bytes=10**12, xids=())


def _energy(name: str, rank: int, step: int) -> Event:
    from orchestrator.core.run.kit_reports import EnergyReported, GpuEnergy

    gpus = tuple(GpuEnergy(gpu=f"GPU-{name}-{i}", joules=650.0 * step) for i in range(GPUS))
    return EnergyReported(
        node=name, rank=rank, window=0, seconds=step, asked=True, final=False, gpus=gpus
    )


def scrape_markdown(found: Scraped) -> str:
    """Beside the limits."""
    target = f"processor time at most {LIMIT_S:g} s, peak at most {LIMIT_MB:g} MB"
    rows = [
        ("nodes, with 8 GPUs and ranks each", f"{found.nodes:,}"),
        ("series", f"{found.series:,}"),
        ("answer", f"{found.bytes / 1e6:.2f} MB"),
        ("first scrape, which reads the whole journal", f"{found.first_s:.2f} s"),
        ("median of the scrapes after it", f"{found.median_s:.3f} s"),
        ("slowest of them", f"{found.worst_s:.3f} s"),
        ("processor time of the median one", f"{found.cpu_s:.3f} s"),
        ("peak memory of the process", f"{found.peak_mb:.0f} MB"),
        (target, "met" if found.met else "MISSED"),
    ]
    return table(("scrape", "value"), rows) + "\n"
