#!/usr/bin/env python3
"""A load test that proves its load.

    python run.py --endpoint http://127.0.0.1:8000/v1 --rate 20 --duration 60
    python run.py --rate 20

The second starts the built-in engine with a small model first. See docs/loadtest.md.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

if not __package__:  # a script: its folder is a package then, too, and the kit lies beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = Path(__file__).resolve().parent.name

import orchestrate_kit as kit
from orchestrate_serving import EngineSettings, SettingsError, start_engines
from orchestrate_serving.failures import ServingError, leave
from orchestrate_serving.gpus import gpus_here

from .base.job import Target
from .base.records import RecordError
from .base.stages import StageError
from .judge.evaluation import headline
from .load.cross_check import chosen_tool, cross_check
from .load.endpoint import EndpointError, authorization, check_endpoint
from .load.fleet import LoadError, SenderError
from .load.node_run import NodeRun, Work
from .load.prompts import InputError, generate_prompts, read_prompts, read_trace
from .load.settings import Settings
from .peers.comparison import Comparison
from .peers.tools import PeerError
from .show.figures import node_figures
from .show.report import publish, verdict

PROGRAM = "loadtest"
USAGE, FAILED = 2, 1
FAILURES = (ServingError, SenderError, PeerError, RecordError, StageError, OSError)


def main() -> None:
    """Run as the command line says; any failure ends in one line that says which."""
    settings = kit.parse(Settings)
    try:
        work = prepare(settings)
    except (InputError, EndpointError, PeerError) as error:
        leave(PROGRAM, USAGE, error)
    try:
        with serving(settings, work) as work:
            run(settings, work)
    except SettingsError as error:
        leave(PROGRAM, USAGE, error)
    except FAILURES as error:
        leave(PROGRAM, FAILED, error)


def prepare(settings: Settings) -> Work:
    """Everything that can be wrong before an engine is started. Raises :class:`InputError`,
    :class:`EndpointError`, :class:`PeerError`.
    """
    if chosen_tool(settings) is not None and places() > 1:
        raise PeerError("a cross-check compares two clients on one node: choose it with --nodes")
    times_s: list[float] = []
    if settings.trace:
        times_s, asks = read_trace(Path(settings.trace), settings.trace_unit, settings.seed)
    elif settings.prompts:
        asks = read_prompts(Path(settings.prompts))
    else:
        asks = generate_prompts(settings.prompt_words, settings.seed)
    work = Work(targets=(), asks=asks, times_s=times_s, unique=not settings.prompts)
    if not settings.endpoint:
        return work
    target = check_endpoint(settings.endpoint, settings.model, settings.api)
    return replace(
        work, targets=(target,), headers=authorization(), server=f"endpoint {target.url}"
    )


@contextmanager
def serving(settings: Settings, work: Work) -> Iterator[Work]:
    """With the engines of this node, unless an endpoint was given."""
    if work.targets:
        yield work
        return
    asked = EngineSettings(
        engine=settings.engine,
        model=settings.model,
        shape=settings.shape,
        command=settings.command,
        arguments=settings.engine_arguments,
        gpus=gpus_here(kit.facts()),
        engines=settings.engines,
        tensor_parallel=settings.tensor_parallel,
    )
    print(f"loadtest: starting {settings.engine}", flush=True)
    with start_engines(asked, kit.output_dir()) as engines:
        targets = tuple(
            Target(url=f"{engine.base_url}/v1", model=engine.model, api=settings.api)
            for engine in engines
        )
        server = f"{len(targets)} x {settings.engine}"
        yield replace(work, targets=targets, server=server, own_engines=True, check=engines.check)


def run(settings: Settings, work: Work) -> None:
    """Send the load and report. Raises ``FAILURES``, also for a load that is not valid."""
    node = NodeRun(
        settings=settings,
        work=work,
        output=kit.output_dir(),
        node=os.environ.get("ORCHESTRATE_NODE") or "here",
        place=kit.rank() + int(os.environ.get("ORCHESTRATE_FIRST_RANK", "0")),
        places=places(),
    )
    problem: Exception | None = None
    comparison: Comparison | None = None
    try:
        asyncio.run(node.run())
        comparison = compared(node)
    except PeerError as error:
        problem = error
    finally:
        if node.stages:
            problem = report(node, comparison) or problem
    if problem is not None:
        raise problem


def places() -> int:
    """How many nodes share the load."""
    return int(os.environ.get("ORCHESTRATE_WORLD_SIZE") or kit.world_size())


def compared(node: NodeRun) -> Comparison | None:
    """What another tool says, if one is asked and our own load is one to compare with. Raises
    :class:`PeerError`, ``OSError``.
    """
    chosen = chosen_tool(node.settings)
    if chosen is None or node.stopped:
        return None
    results = node.results()
    if verdict(results) is not None:
        return None
    return cross_check(node, *chosen, headline(results).summary.total)


def report(node: NodeRun, comparison: Comparison | None) -> LoadError | None:
    """Publish what was measured; why the run fails, None = it does not.

    Of several nodes each reports its own figures under its name, and the coordinator lets
    `combine.py` judge all of them together.
    """
    results = node.results()
    if node.places == 1:
        publish([node.load], results, node.settings, node.output, comparison)
        return verdict(results)
    for name, value, unit in node_figures(results, node.node):
        kit.metric(name, value, unit)
    return None


if __name__ == "__main__":
    main()
