#!/usr/bin/env python3
"""Inference servers of this node, up until a signal ends them.

    python run.py --engine vllm --model Qwen/Qwen2-7B --port 8000

Writes where they answer to endpoints-NODE.json. See docs/serving.md.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # a script: its folder is a package then, too, and the kit lies beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = Path(__file__).resolve().parent.name

import orchestrate_kit as kit
from orchestrate_serving import (
    Engine,
    EngineError,
    EngineSettings,
    RunningEngines,
    SettingsError,
    start_engines,
)
from orchestrate_serving.failures import leave
from orchestrate_serving.gpus import gpus_here
from orchestrate_serving.stop_signals import Stopped, raise_on_signals
from orchestrate_serving.telemetry import EngineTelemetry

USAGE, FAILED = 2, 1
POLL_S = 0.5  # how soon an engine that died is noticed
PROGRESS_S = 15.0  # well below the silence after which a run looks for ranks that hang
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with, never a default


@dataclass(frozen=True)
class Settings:
    """Which engines, and for how long. Times are in seconds."""

    engine: str
    model: str
    shape: str
    command: str
    engine_arguments: str
    engines: int
    tensor_parallel: int
    host: str
    port: int
    health: str
    ready: float
    stop: float
    duration: float


def main() -> None:
    """Serve; status 0 once asked to end, when no process of an engine is left."""
    settings = kit.parse(Settings)
    raise_on_signals()
    node = os.environ.get("ORCHESTRATE_NODE") or socket.gethostname()
    try:
        serve(settings, node)
    except Stopped:
        print(f"serve: {node}: stopped; no process of an engine is left", flush=True)
    except (SettingsError, EngineError, OSError) as error:
        leave("serve", USAGE if isinstance(error, SettingsError) else FAILED, error)


def serve(settings: Settings, node: str) -> None:
    """Engines from start to end. Raises :class:`SettingsError`, :class:`EngineError` for one that
    died or outlived its end, :class:`Stopped`, ``OSError``.
    """
    facts = kit.facts()
    print(f"serve: {node}: starting {settings.engine}", flush=True)
    with start_engines(engine_settings(settings, facts), kit.output_dir()) as engines:
        announce(engines, node, node_address(settings.host, facts))
        watch(engines, settings.duration)


def engine_settings(settings: Settings, facts: dict[str, Any]) -> EngineSettings:
    """What is asked of this node."""
    return EngineSettings(
        engine=settings.engine,
        model=settings.model,
        shape=settings.shape,
        command=settings.command,
        arguments=settings.engine_arguments,
        gpus=gpus_here(facts),
        engines=settings.engines,
        tensor_parallel=settings.tensor_parallel,
        host=settings.host,
        port=settings.port,
        health=settings.health,
        ready_s=settings.ready,
        stop_s=settings.stop,
    )


def node_address(host: str, facts: dict[str, Any]) -> str:
    """Where others find an engine that listens on ``host``."""
    if host not in EVERYWHERE:
        return host
    return str(facts.get("route_address") or facts.get("hostname") or socket.gethostname())


def announce(engines: Sequence[Engine], node: str, address: str) -> None:
    """Say where the engines answer, to readers of the log and to programs."""
    found = [endpoint(engine, node, address) for engine in engines]
    for each in found:
        print(f"serve: {node}: {each['model']} at {each['base_url']}", flush=True)
    path = kit.output_dir() / f"endpoints-{node}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    kit.artifact(path)
    kit.metric(f"engines.{node}", len(found), "engines")
    for index, each in enumerate(found):
        kit.metric(f"engine_port.{node}.{index}", each["port"], "")
    kit.metric(f"startup.{node}", max(engine.startup_s for engine in engines), "s")


def endpoint(engine: Engine, node: str, address: str) -> dict[str, Any]:
    """One engine as clients need it; ``base_url`` is what OpenAI's clients call so."""
    port = int(engine.base_url.rpartition(":")[2])
    return {
        "node": node,
        "address": address,
        "port": port,
        "base_url": f"http://{address}:{port}/v1",
        "model": engine.model,
        "gpus": list(engine.gpus),
    }


def watch(engines: RunningEngines, duration_s: float) -> None:
    """Return after ``duration_s``, 0 = never. Raises :class:`EngineError` if an engine ends."""
    began = time.monotonic()
    report_s = 0.0
    telemetry = EngineTelemetry(engine.base_url for engine in engines)
    while True:
        engines.check()
        up_s = time.monotonic() - began
        if up_s >= report_s:
            kit.progress(round(up_s), round(duration_s or up_s), "s of serving")
            for name, (value, unit) in telemetry.read().items():
                kit.metric(name, value, unit, step=round(up_s))
            report_s += PROGRESS_S
        if duration_s and up_s >= duration_s:
            return
        time.sleep(POLL_S)


if __name__ == "__main__":
    main()
