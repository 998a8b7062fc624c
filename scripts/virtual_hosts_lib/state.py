"""What is known about one set of hosts: plain data, stored as DIR/hosts.json."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .processes import Process

STATE_FILE = "hosts.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `up` was asked for."""

    count: int
    name_prefix: str = "vh"
    network: str = "10.123.0.0/16"
    user: str = "root"
    python: str = ""
    home_size: str | None = None
    cpus: float | None = None
    max_startups: str = "10:30:100"
    noisy: bool = False
    share: tuple[str, ...] = ()
    slurm: bool = False


@dataclass(slots=True, kw_only=True)
class Host:
    """One host; `process` is its pid 1 as seen from the machine."""

    name: str
    index: int
    address: str
    boot_id: str
    process: Process
    cgroups: list[str] = field(default_factory=list)

    @property
    def link(self) -> str:
        """The fabric's end of this host's cable."""
        return f"host{self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowLink:
    """Limits of one host's cable, in each direction; delay is one way, in milliseconds."""

    rate: str | None = None
    delay_ms: float = 0.0
    loss: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowNode:
    """A host that gets 1/factor of its CPU time."""

    factor: float
    throttle: Process | None = None  # the stop-and-continue process, where there is no quota


@dataclass(slots=True, kw_only=True)
class Faults:
    """The faults in force.  Pairs are sorted names."""

    cut_pairs: set[tuple[str, str]] = field(default_factory=set)
    cut_ssh: set[str] = field(default_factory=set)
    unplugged: set[str] = field(default_factory=set)
    slow_links: dict[str, SlowLink] = field(default_factory=dict)
    slow_nodes: dict[str, SlowNode] = field(default_factory=dict)
    filled: set[str] = field(default_factory=set)

    def of(self, name: str) -> list[str]:
        """The faults that touch this host, in words."""
        peers = sorted({b if a == name else a for a, b in self.cut_pairs if name in (a, b)})
        link, node = self.slow_links.get(name), self.slow_nodes.get(name)
        words = [f"data cut to {','.join(peers)}"] if peers else []
        words += ["ssh cut"] if name in self.cut_ssh else []
        words += ["unplugged"] if name in self.unplugged else []
        words += [f"slow link {link.rate} {link.delay_ms:g} ms {link.loss:.2%}"] if link else []
        words += [f"slow node x{node.factor:g}"] if node else []
        return words + (["disk full"] if name in self.filled else [])


@dataclass(slots=True, kw_only=True)
class State:
    """One set of hosts that is up."""

    directory: str
    subnet: str
    coordinator: str
    fabric: Process
    options: Options
    shared: list[str]
    hosts: list[Host]
    faults: Faults = field(default_factory=Faults)

    def all_pairs(self) -> set[tuple[str, str]]:
        return set(itertools.combinations(sorted(host.name for host in self.hosts), 2))


def set_id(directory: Path) -> str:
    """Six hex digits that name this set's interface and control group; a pure function of DIR."""
    return hashlib.sha256(os.fsencode(directory)).hexdigest()[:6]


def dump_state(state: State) -> str:
    return json.dumps(dataclasses.asdict(state), indent=1, default=sorted) + "\n"


def find_processes(value: Any) -> list[Process]:
    """Every process that stored state names, at any depth; also works on another version's file."""
    if isinstance(value, dict):
        if value.keys() == {"pid", "started"}:
            return [Process(**value)]
        value = list(value.values())
    return [p for item in value for p in find_processes(item)] if isinstance(value, list) else []


def load_state(text: str) -> State:
    """Raises TypeError or KeyError when another version of this program wrote the text."""
    raw: dict[str, Any] = json.loads(text)
    raw["options"]["share"] = tuple(raw["options"]["share"])
    raw["options"] = Options(**raw["options"])
    raw["fabric"] = Process(**raw["fabric"])
    raw["hosts"] = [
        Host(**{**host, "process": Process(**host["process"])}) for host in raw["hosts"]
    ]
    raw["faults"] = _load_faults(raw["faults"])
    return State(**raw)


def write_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file that appears complete or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.replace(path)


def _load_faults(raw: dict[str, Any]) -> Faults:
    nodes: dict[str, SlowNode] = {}
    for name, node in raw["slow_nodes"].items():
        throttle = Process(**node["throttle"]) if node["throttle"] else None
        nodes[name] = SlowNode(factor=node["factor"], throttle=throttle)
    return Faults(
        cut_pairs={(a, b) for a, b in raw["cut_pairs"]},
        cut_ssh=set(raw["cut_ssh"]),
        unplugged=set(raw["unplugged"]),
        slow_links={name: SlowLink(**link) for name, link in raw["slow_links"].items()},
        slow_nodes=nodes,
        filled=set(raw["filled"]),
    )
