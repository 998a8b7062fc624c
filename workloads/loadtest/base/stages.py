"""What one node's part of a load was: what its records mean, and what they are judged by."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

SCHEMA_VERSION = 1
MAX_STAGES = 1000


class StageError(ValueError):
    """A file that does not say what a load was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturation:
    """When the load was found to be more than the server can do, and by how much."""

    at_s: float
    rate: float
    backlog_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEnergy:
    """What the GPUs of a node's own engines used in a stage, board power. ``joules`` None: unknown;
    ``problems``: why it is not valid, none = it is.
    """

    gpus: int
    seconds: float
    joules: float | None
    peak_watts: float | None
    problems: tuple[str, ...] = ()

    @property
    def watts(self) -> float | None:
        """The mean, if it is valid."""
        if self.joules is None or self.problems or self.seconds <= 0:
            return None
        return self.joules / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One rate, on one node. ``rate``: requests per second of it; None: a closed loop.

    ``schedule_s``: how long requests were sent; ``configured_s``: how long they were to be.
    ``whole``: its schedule was sent to the end.
    ``wall``: when it began, seconds since 1970. ``failure``: what ended it. ``energy`` None: of a
    server that others run nothing is read.
    """

    stage: int
    rate: float | None
    concurrency: int
    schedule_s: float
    configured_s: float
    planned: int
    wall: float
    whole: bool = True
    saturation: Saturation | None = None
    failure: str = ""
    energy: StageEnergy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLoad:
    """All stages of a node, and the client that sent them.

    ``place`` of ``places``: which share of the whole load was its own. ``ceiling``: streamed
    requests per second that its processes reach against a server that does nothing. ``settings``:
    the parameters. ``server``: what was measured, in words for people.
    """

    node: str
    stages: tuple[Stage, ...]
    ceiling: float
    model: str
    server: str
    settings: Mapping[str, Any]
    warmed_up: int = 0
    place: int = 0
    places: int = 1

    def to_json(self) -> str:
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=1) + "\n"


def parse_node_load(text: str, name: str) -> NodeLoad:
    """What :meth:`NodeLoad.to_json` wrote on some node. Raises :class:`StageError`."""
    try:
        entry = json.loads(text)
        if entry["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema_version {entry['schema_version']!r}")
        stages = tuple(_stage(each) for each in entry["stages"][:MAX_STAGES])
        return NodeLoad(
            node=str(entry["node"]),
            stages=stages,
            ceiling=_number(entry["ceiling"]),
            model=str(entry["model"]),
            server=str(entry["server"]),
            settings=dict(entry["settings"]),
            warmed_up=int(entry["warmed_up"]),
            place=int(entry["place"]),
            places=int(entry["places"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StageError(f"{name}: {type(error).__name__}: {error}") from None


def _stage(entry: dict[str, Any]) -> Stage:
    found = entry["saturation"]
    return Stage(
        stage=int(entry["stage"]),
        rate=None if entry["rate"] is None else _number(entry["rate"]),
        concurrency=int(entry["concurrency"]),
        schedule_s=_number(entry["schedule_s"]),
        configured_s=_number(entry["configured_s"]),
        planned=int(entry["planned"]),
        wall=_number(entry["wall"]),
        whole=bool(entry["whole"]),
        saturation=None if found is None else Saturation(**{k: _number(found[k]) for k in found}),
        failure=str(entry["failure"]),
        energy=_energy(entry["energy"]) if entry.get("energy") is not None else None,
    )


def _energy(entry: dict[str, Any]) -> StageEnergy:
    joules, peak = entry["joules"], entry["peak_watts"]
    return StageEnergy(
        gpus=int(entry["gpus"]),
        seconds=_number(entry["seconds"]),
        joules=None if joules is None else _number(joules),
        peak_watts=None if peak is None else _number(peak),
        problems=tuple(map(str, entry["problems"])),
    )


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)
