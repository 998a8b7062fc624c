#!/usr/bin/env python3
"""This node's part of a Ray cluster, up until a signal ends it. `orchestrate ray up` starts it.

    RAY_AUTH_TOKEN=$(openssl rand -hex 32) python run.py

Alone it is a cluster of one node. See docs/ray.md.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

if not __package__:  # a script: its folder is a package then, too, and the kit lies beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = Path(__file__).resolve().parent.name

import orchestrate_kit as kit
from orchestrate_serving.gpus import gpus_here
from orchestrate_serving.stop_signals import Stopped, ignore_signals, raise_on_signals

from .ray_node import RayError, RayNode, free_port, own_address
from .ray_start import LOOPBACK, NodeStart, program_environment

USAGE, FAILED = 2, 1
POLL_S = 0.5  # how soon it is noticed that Ray died
PROGRESS_S = 15.0  # well below the silence after which a run looks for ranks that hang
TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105 - the variable's name
AGENT_FILLS_IN = "{scratch}"
# What Ray's dashboard imports of ray[default]; without them its process ends at once.
DASHBOARD_NEEDS = ("aiohttp", "aiohttp_cors", "grpc", "opencensus", "opentelemetry.proto")


@dataclass(frozen=True)
class Settings:
    """How much of each node, and for how long. Times are in seconds."""

    cpus: int
    object_store: int | str
    dashboard: str
    ready: float
    stop: float
    scratch: str


def main() -> None:
    """Keep this node's part up; status 0 once asked to end."""
    settings = kit.parse(Settings)
    raise_on_signals()
    node = os.environ.get("ORCHESTRATE_NODE") or socket.gethostname()
    refuse_misuse()
    try:
        with scratch_folder(settings.scratch) as scratch:
            keep_up(settings, node, scratch)
    except Stopped:
        print(f"ray_cluster: {node}: stopped", flush=True)
    except (RayError, OSError) as error:
        _leave(FAILED, str(error))


def refuse_misuse() -> None:
    """End with status 2 where Ray would be open to everybody, or could not have its port."""
    if not os.environ.get(TOKEN):
        _leave(USAGE, f"{TOKEN} is not set, and whoever reaches Ray could run programs here")
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        _leave(USAGE, "torchrun listens at the port of Ray's head: --launcher direct")


def keep_up(settings: Settings, node: str, scratch: Path) -> None:
    """From start to end. Raises :class:`RayError`, :class:`Stopped`, ``OSError``."""
    output = kit.output_dir()
    ray = RayNode(plan_start(settings, scratch), output / f"ray-start-{node}.log")
    print(f"ray_cluster: {node}: starting Ray {version('ray')}", flush=True)
    try:
        ray.begin(settings.ready)
        announce(ray.start, node, write_environment(ray.start, scratch))
        watch(ray)
    finally:
        ignore_signals()
        ray.stop(settings.stop)
        ray.keep_logs(output / f"ray-logs-{node}")
        ray.remove_files()


def plan_start(settings: Settings, scratch: Path) -> NodeStart:
    """What this node brings, at ports that are free now."""
    facts = kit.facts()
    head = os.environ.get("MASTER_ADDR", LOOPBACK)
    port = int(os.environ.get("MASTER_PORT") or free_port(head))
    is_head = kit.rank() == 0
    has_dashboard = (
        is_head and settings.dashboard == "auto" and all(map(_installed, DASHBOARD_NEEDS))
    )
    return NodeStart(
        head=head,
        port=port,
        address=head if is_head else own_address(head, port),
        is_head=is_head,
        files=str(scratch / "ray"),
        cpus=settings.cpus or int(facts.get("cpus") or len(os.sched_getaffinity(0))),
        gpus=len(gpus_here(facts)),
        object_store=0 if settings.object_store == "auto" else int(settings.object_store),
        dashboard_port=free_port(LOOPBACK) if has_dashboard else 0,
        client_port=free_port(head) if is_head and _installed("grpc") else 0,
    )


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


def write_environment(start: NodeStart, scratch: Path) -> Path:
    """Files for programs on this node, for nobody else to read: the token, and how to use it."""
    token, environment = scratch / "token", scratch / "env"
    for path, text in (
        (token, os.environ[TOKEN]),
        (environment, program_environment(start, str(Path(sys.executable).parent), str(token))),
    ):
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
    return environment


def announce(start: NodeStart, node: str, environment: Path) -> None:
    """Say that this node is part of the cluster, to readers of the log and to programs."""
    print(f"ray_cluster: {node}: part of {start.cluster}", flush=True)
    print(f"ray_cluster: {node}: environment {environment}", flush=True)
    kit.metric(f"ray_cpus.{node}", start.cpus, "CPUs")
    kit.metric(f"ray_gpus.{node}", start.gpus, "GPUs")
    if start.dashboard_port:
        kit.metric(f"ray_dashboard.{node}", start.dashboard_port, "")


def watch(ray: RayNode) -> None:
    """Until a signal comes. Raises :class:`RayError` if this node's part ends before."""
    began = time.monotonic()
    report_s = 0.0
    while True:
        ray.check()
        up_s = time.monotonic() - began
        if up_s >= report_s:
            kit.progress(round(up_s), round(up_s), "s of Ray")
            report_s += PROGRESS_S
        time.sleep(POLL_S)


@contextmanager
def scratch_folder(given: str) -> Iterator[Path]:
    """The folder that the agent made, or without an agent one that goes with this process."""
    if given != AGENT_FILLS_IN:
        yield Path(given)
        return
    with tempfile.TemporaryDirectory(
        prefix="or-ray-", dir="/tmp", ignore_cleanup_errors=True
    ) as own:
        yield Path(own)


def _leave(code: int, problem: str) -> NoReturn:
    print(f"ray_cluster: {problem}", file=sys.stderr, flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
