"""The ranks of this run: which node each is on, its device, and the groups that are measured."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from orchestrate_models.devices import choose_device

NODE, ALL, RAILS = "node", "all", "rails"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Ranks that run collectives together. ``handle`` None = only this rank.

    Scopes: the ranks of one node, all ranks, and rails: the ranks with the same local rank on
    every node, whose traffic is between nodes only.
    """

    scope: str
    members: tuple[int, ...]
    nodes: int
    handle: Any

    @property
    def size(self) -> int:
        return len(self.members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process's place. ``control`` is a group on the CPUs: waiting in it costs no GPU time."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    node: str
    nodes: tuple[str, ...]
    device: torch.device
    groups: tuple[Group, ...]
    control: Any

    @property
    def is_main(self) -> bool:
        """The rank that judges and writes the results."""
        return self.rank == 0

    @property
    def leads_node(self) -> bool:
        """The one rank of each node that looks after what the node has once."""
        return self.local_rank == 0

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def gather(self, value: Any) -> list[Any]:
        """Every rank's picklable ``value``, in rank order."""
        return gather(value, self.size, self.control)

    def meet(self) -> None:
        """Wait for every rank, with the device idle."""
        if self.cuda:
            torch.cuda.synchronize(self.device)
        if self.size > 1:
            dist.barrier(group=self.control)

    def largest(self, value: float) -> float:
        """The largest ``value`` of all ranks."""
        return float(max(self.gather(value)))

    def group(self, scope: str) -> Group | None:
        return next((group for group in self.groups if group.scope == scope), None)


def gather(value: Any, size: int, control: Any) -> list[Any]:
    """Every rank's ``value``; without a process group there is only ours."""
    if size == 1:
        return [value]
    values: list[Any] = [None] * size
    dist.all_gather_object(values, value, group=control)
    return values


@contextmanager
def joined_ranks(device: str, timeout_s: int) -> Iterator[Ranks]:
    """Join the process group that the launcher's environment describes, if there is one."""
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = choose_device(device, local_rank)
    control = None
    if size > 1:
        timeout = timedelta(seconds=timeout_s)
        dist.init_process_group(
            "nccl" if chosen.type == "cuda" else "gloo",
            timeout=timeout,
            device_id=chosen if chosen.type == "cuda" else None,
        )
        control = dist.new_group(backend="gloo", timeout=timeout)
    name = os.environ.get("ORCHESTRATE_NODE") or socket.gethostname()
    place = (int(os.environ.get("GROUP_RANK", "0")), name)
    places: list[tuple[int, str]] = gather(place, size, control)
    order = list(dict.fromkeys(places))
    yield Ranks(
        rank=rank,
        size=size,
        local_rank=local_rank,
        local_size=places.count(place),
        node=_unique(order)[order.index(place)],
        nodes=tuple(_unique(order)),
        device=chosen,
        groups=tuple(_groups(places, rank)) if size > 1 else (),
        control=control,
    )
    if size > 1:  # not after a failure: the other ranks would not take part
        dist.destroy_process_group()


def _unique(order: list[tuple[int, str]]) -> list[str]:
    """Names of nodes; hosts of the same name get their number."""
    names = [name for _, name in order]
    return [name if names.count(name) == 1 else f"{name}-{number}" for number, name in order]


def memberships(places: list[tuple[int, str]]) -> dict[str, list[tuple[int, ...]]]:
    """The ranks of every group of every scope, from the place of each rank.

    A scope that would say nothing new is left out: all ranks of a single node, rails of nodes
    that have one rank or unequal numbers of them.
    """
    by_node = [
        tuple(rank for rank, there in enumerate(places) if there == place)
        for place in dict.fromkeys(places)
    ]
    found: dict[str, list[tuple[int, ...]]] = {}
    if any(len(members) > 1 for members in by_node):
        found[NODE] = by_node
    if len(by_node) > 1:
        found[ALL] = [tuple(range(len(places)))]
        if {len(members) for members in by_node} == {len(by_node[0])} and len(by_node[0]) > 1:
            found[RAILS] = list(zip(*by_node, strict=True))
    return found


def _groups(places: list[tuple[int, str]], rank: int) -> Iterator[Group]:
    """The groups of this rank. Every rank makes all of them, in the same order."""
    for scope, all_members in memberships(places).items():
        for members in all_members:
            handle = dist.group.WORLD if scope == ALL else dist.new_group(list(members))
            if rank in members:
                nodes = len({places[member] for member in members})
                yield Group(scope=scope, members=members, nodes=nodes, handle=handle)
