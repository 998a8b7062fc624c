"""Copies of code, environments and agents that nodes keep for later runs: measured and removed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.core.model.plan import Budgets
from orchestrator.engine.oneshot.node_link import node_link
from orchestrator.parsing.replies.record_lines import as_int

PRUNE_S = 300.0
MOST_ENTRIES, MOST_BYTES = 1 << 31, 1 << 60


@dataclass(frozen=True, slots=True)
class CacheSize:
    """How many entries of a kind, and what they take on the node's disk, in bytes."""

    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class NodeCaches:
    """What was unused on one node, by kind; or the ``error`` for which it was not asked."""

    node: str
    caches: Mapping[str, CacheSize] = field(default_factory=dict)
    error: str | None = None

    @property
    def bytes(self) -> int:
        """Of all kinds."""
        return sum(cache.bytes for cache in self.caches.values())


async def clean_caches(
    nodes: Sequence[NodeSpec], budgets: Budgets, *, older_than_s: float, dry_run: bool
) -> list[NodeCaches]:
    """Remove what nobody used for ``older_than_s``, or only count it; one answer per node, in
    their order.
    """
    request = {"older_than_s": older_than_s, "dry_run": dry_run}
    return list(await asyncio.gather(*(_clean_node(spec, budgets, request) for spec in nodes)))


async def _clean_node(
    spec: NodeSpec, budgets: Budgets, request: Mapping[str, object]
) -> NodeCaches:
    try:
        async with node_link(spec, budgets) as link:
            await link.open(budgets.connect_s)
            reply = await link.request("prune", request, timeout_s=PRUNE_S)
        return NodeCaches(spec.name, parse_caches(reply.fields.get("caches")))
    except OrchestrateError as error:
        return NodeCaches(spec.name, error=str(error))
    except TimeoutError:
        return NodeCaches(spec.name, error="it did not answer in time")


def parse_caches(answer: object) -> dict[str, CacheSize]:
    """What a node answers of its caches. It is not trusted: what has no sense counts as nothing."""
    answer = answer if isinstance(answer, dict) else {}
    return {kind: _parse_size(answer.get(kind)) for kind in ("snapshots", "environments", "agents")}


def _parse_size(value: object) -> CacheSize:
    value = value if isinstance(value, dict) else {}
    entries = as_int(value.get("entries"), 0, MOST_ENTRIES)
    return CacheSize(entries or 0, as_int(value.get("bytes"), 0, MOST_BYTES) or 0)
