"""The captures that a run's nodes sent home, read from its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from orchestrator.adapters.store.regular_files import read_regular
from orchestrator.core.captures.nvlink import Collectives
from orchestrator.core.captures.profile import RankProfile
from orchestrator.core.captures.recorded import CapturedSamples, NodeRecord, RecordedIndex
from orchestrator.core.model.captures import Capture, CaptureKind
from orchestrator.parsing.captures import profiled, sampled
from orchestrator.parsing.captures.sampled import BadCapture

FOLDER = "captures"  # in a node's outputs
INDEX = "captures.json"
PROFILES = "profile/rank-*.json"
COLLECTIVES = "collectives-*.json"
MAX_FILES = 16  # of a node, of each of these
T = TypeVar("T")


def read_node(node: str, outputs: Path, captures: Sequence[Capture]) -> NodeRecord:
    """What the sampler and the ranks of ``node`` left in its ``outputs``; what is wrong with a file
    is in the record.
    """
    reader = _Reader(outputs / FOLDER)
    kinds = [capture.kind.value for capture in captures]
    index = None if kinds == [CaptureKind.PROFILE] else reader.index()
    samples = {} if index is None else dict(reader.samples(kinds, index.began))
    return NodeRecord(
        node=node,
        index=index,
        samples=samples,
        collectives=reader.collectives() if CaptureKind.NVLINK in kinds else (),
        profiles=reader.profiles() if CaptureKind.PROFILE in kinds else (),
        problem=reader.problem,
        problems=reader.problems,
    )


class _Reader:
    """Of one node's folder; ``problems``: by capture, what is wrong with its file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.problem = ""
        self.problems: dict[str, str] = {}

    def index(self) -> RecordedIndex | None:
        path = self._folder / INDEX
        try:
            return sampled.parse_index(read_regular(path, sampled.MAX_INDEX_BYTES))
        except FileNotFoundError:
            return None
        except (OSError, BadCapture) as error:
            self.problem = f"{INDEX}: {error}"
            return None

    def samples(self, kinds: Sequence[str], began: float) -> Iterator[tuple[str, CapturedSamples]]:
        for kind in (kind for kind in kinds if kind in sampled.COLUMNS):
            parse = partial(sampled.parse_samples, kind, began=began)
            for found in self._each(kind, f"{kind}.csv", sampled.MAX_FILE_BYTES, parse):
                yield kind, found

    def collectives(self) -> Sequence[Collectives]:
        """Of the first rank that says any."""
        parse = profiled.parse_collectives
        every = self._each(CaptureKind.NVLINK, COLLECTIVES, profiled.MAX_BYTES, parse)
        return next((found for found in every if found), [])

    def profiles(self) -> Sequence[RankProfile]:
        parse = profiled.parse_profile
        return list(self._each(CaptureKind.PROFILE, PROFILES, profiled.MAX_BYTES, parse))

    def _each(self, kind: str, pattern: str, most: int, parse: Callable[[bytes], T]) -> Iterator[T]:
        for path in sorted(self._folder.glob(pattern))[:MAX_FILES]:
            if path.name.endswith(".trace.json"):
                continue
            try:
                yield parse(read_regular(path, most))
            except (OSError, BadCapture) as error:
                self.problems.setdefault(kind, f"{path.name}: {error}")
