#!/usr/bin/env python3
"""One result of several nodes: rates are added up, percentiles come from all requests together.

    python combine.py NODE_OUTPUT...

Each folder has a node's `load.json` and `requests.jsonl`. The coordinator runs it when a run had
several nodes; by hand it does the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = Path(__file__).resolve().parent.name

import orchestrate_kit as kit
from orchestrate_serving.failures import leave

from .base.records import RecordError, RequestRecord, read_records
from .base.stages import NodeLoad, StageError, parse_node_load
from .judge.evaluation import StageResult, evaluate, headline, settings_difference
from .load.fleet import LoadError
from .load.node_run import LOAD, RECORDS
from .load.settings import Settings
from .show.report import publish, verdict


class CombineError(RuntimeError):
    """Outputs that are not of one load."""


def main() -> None:
    try:
        folders = [Path(folder) for folder in sys.argv[1:]]
        nodes = [read_node(folder) for folder in folders if (folder / LOAD).exists()]
        combine(nodes)
        _require_all(folders)
    except (LoadError, CombineError, RecordError, StageError, OSError) as error:
        leave("loadtest", 1, error)


def _require_all(folders: Sequence[Path]) -> None:
    """Raises :class:`CombineError` for nodes that are not in the result."""
    names = [folder.name for folder in folders if not (folder / LOAD).exists()]
    if names:
        raise CombineError(f"nothing was measured on {', '.join(names)}")


def read_node(folder: Path) -> tuple[NodeLoad, Path]:
    """What a node did, and where its records are. Raises ``StageError``, ``OSError``."""
    path = folder / LOAD
    return parse_node_load(path.read_text(encoding="utf-8"), str(path)), folder / RECORDS


def combine(nodes: Sequence[tuple[NodeLoad, Path]]) -> None:
    """Publish what all did together. Raises :class:`LoadError` for a load that is not valid,
    :class:`CombineError`, ``RecordError``, ``OSError``.
    """
    if not nodes:
        raise CombineError("no node has left its load.json")
    first, others = nodes[0][0], [load for load, _ in nodes[1:]]
    shares = {(load.place, load.places) for load, _ in nodes}
    if len(shares) < len(nodes) or len({places for _, places in shares}) > 1:
        raise CombineError("these nodes did not share one load: their shares overlap")
    for load in others:
        if differs := settings_difference(first.settings, load.settings):
            raise CombineError(f"{first.node} and {load.node} differ in the parameter {differs}")
    try:
        settings = Settings(**first.settings)
    except TypeError as error:
        raise CombineError(f"{first.node}: not the parameters of this workload: {error}") from None
    results = pool(nodes, settings)
    publish([load for load, _ in nodes], results, settings, kit.output_dir())
    if (problem := verdict(results)) is not None:
        raise problem


def pool(nodes: Sequence[tuple[NodeLoad, Path]], settings: Settings) -> list[StageResult]:
    """The stages of all nodes together. A search ends at another rate on each node: there, each
    node's best stage counts, as one. Raises ``RecordError``, ``OSError``, :class:`CombineError`.
    """
    if settings.arrival != "search":
        return evaluate([(load, records_of(path)) for load, path in nodes], settings.terms)
    best = [_best(load, path, settings) for load, path in nodes]
    return evaluate(
        [
            (as_one(load, stage), one_stage(records_of(path), stage))
            for (load, path), stage in zip(nodes, best, strict=True)
        ],
        settings.terms,
    )


def _best(load: NodeLoad, path: Path, settings: Settings) -> int:
    results = evaluate([(load, records_of(path))], settings.terms)
    if not results:
        raise CombineError(f"{load.node} has not ended any stage")
    return headline(results).stage


def as_one(load: NodeLoad, stage: int) -> NodeLoad:
    """The node with this stage alone, as its first."""
    kept = tuple(replace(each, stage=0) for each in load.stages if each.stage == stage)
    return replace(load, stages=kept)


def one_stage(records: Iterator[RequestRecord], stage: int) -> Iterator[RequestRecord]:
    """Those of this stage, as of the first."""
    return (replace(record, stage=0) for record in records if record.stage == stage)


def records_of(path: Path) -> Iterator[RequestRecord]:
    """Every record of a node; none if there is no file. Raises ``RecordError``, ``OSError``."""
    if path.exists():
        with path.open(encoding="utf-8") as file:
            yield from read_records(file, str(path))


if __name__ == "__main__":
    main()
