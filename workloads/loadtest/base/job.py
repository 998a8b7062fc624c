"""What one sending process is asked to do: plain data, as JSON on its standard input."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

from .arrivals import OpenLoad, arrival_times, share_of, share_of_count

CHAT, COMPLETIONS = "chat", "completions"
MAX_TOKENS = "max_tokens"
PATHS = {CHAT: "chat/completions", COMPLETIONS: "completions"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server: ``url`` is its base, such as ``http://gpu01:8000/v1``."""

    url: str
    model: str
    api: str = CHAT

    @property
    def host(self) -> str:
        """Raises ``ValueError``."""
        host = urlsplit(self.url).hostname
        if not host:
            raise ValueError(f"{self.url!r} names no host")
        return host

    @property
    def tls(self) -> bool:
        return urlsplit(self.url).scheme == "https"

    @property
    def port(self) -> int:
        """Raises ``ValueError``."""
        return urlsplit(self.url).port or (443 if self.tls else 80)

    @property
    def authority(self) -> str:
        """What the Host header says."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def path(self, name: str = "") -> str:
        """Of ``name`` below the base; the completions by default."""
        base = urlsplit(self.url).path.rstrip("/")
        return f"{base}/{name or PATHS[self.api]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A prompt and how long its answer is to be. ``messages`` take the place of ``text``."""

    text: str = ""
    messages: tuple[dict[str, Any], ...] = ()
    output_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One stage for one process: an open schedule, given times, or streams kept open.

    ``member`` of ``members``: which share of the whole load is this process's. ``record``: the file
    that lines of records are appended to; empty = none is kept. ``asks``: prompts, used in turn;
    with ``unique`` each request's begins with ``lead`` and its number, counted from ``first`` on,
    so that no server's cache knows it already.
    ``limit_field``: the name of the request's longest answer; ``ask_usage``: whether the server is
    to say how many tokens there were.
    """

    targets: Sequence[Target]
    asks: Sequence[Ask]
    output_tokens: int
    ignore_eos: bool
    unique: bool
    lead: str = ""
    first: int = 0
    load: OpenLoad | None = None
    times_s: Sequence[float] = ()
    concurrency: int = 0
    duration_s: float = 0.0
    most_requests: int = 0
    seed: int = 0
    member: int = 0
    members: int = 1
    stage: int = 0
    start_s: float = 0.0
    timeout_s: float = 600.0
    most_in_flight: int = 4096
    record: str = ""
    headers: Sequence[tuple[str, str]] = field(default_factory=tuple)
    ask_usage: bool = True
    limit_field: str = MAX_TOKENS

    def mark(self, number: int) -> str:
        """What stands in front of a unique prompt: equally long for a million requests, so that
        they are equally many tokens.
        """
        return f"{self.lead}{self.first + number:06d}"

    def schedule(self) -> array[float]:
        """This member's times, from the start of the stage; none for a closed loop."""
        times = arrival_times(self.load, self.seed) if self.load else self.times_s
        return share_of(times, self.member, self.members)

    def streams(self) -> int:
        """How many streams this member keeps open; 0 for an open schedule."""
        return share_of_count(self.concurrency, self.member, self.members)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """What :meth:`to_json` wrote: the parent process is trusted."""
        entry = json.loads(text)
        entry["targets"] = [Target(**each) for each in entry["targets"]]
        entry["asks"] = [Ask(**each) for each in entry["asks"]]
        entry["load"] = OpenLoad(**entry["load"]) if entry["load"] else None
        return cls(**entry)
