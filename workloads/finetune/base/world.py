"""The ranks of this run: process group, device, and the few collectives that training needs."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This process's place among the ranks, and its device. One rank needs no process group.

    Without collectives between nodes each node is a world of its own; `run_size` and `first` tell
    of the whole run then: how many ranks it has, and how many of them come before this world's.
    """

    rank: int
    local_rank: int
    size: int
    device: torch.device
    run_size: int = 0
    first: int = 0

    @property
    def total(self) -> int:
        """All ranks of the run."""
        return self.run_size or self.size

    @property
    def number(self) -> int:
        """This rank's number in the run."""
        return self.first + self.rank

    @property
    def is_main(self) -> bool:
        """The rank that reports and writes the results."""
        return self.rank == 0

    @property
    def leads_node(self) -> bool:
        """The one rank of each node that writes to that node's disk."""
        return self.local_rank == 0

    def log(self, text: str) -> None:
        """A line for people, once for all ranks."""
        if self.is_main:
            print(text, flush=True)

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.size > 1:
            # On CUDA a collective is only queued; reading its result is what waits.
            self.sum(torch.zeros(1, device=self.device)).item()

    def synchronize(self) -> None:
        """Until the device is done with what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add `tensor` over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, value: bool) -> bool:
        """Whether it is so on any rank."""
        if self.size == 1:
            return value
        return bool(self.sum(torch.tensor([float(value)], device=self.device)).item())

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        """Rank 0's `tensor` on every rank, in place."""
        if self.size > 1:
            dist.broadcast(tensor, 0)
        return tensor

    def max(self, value: float) -> float:
        """The largest `value` over all ranks."""
        return float(max(self.gather(value)))

    def gather(self, value: Any) -> list[Any]:
        """Every rank's small picklable `value`, in rank order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def share(self, payload: bytes | None, *, source: int) -> bytes:
        """The bytes that rank `source` passes, on every rank."""
        if self.size == 1:
            assert payload is not None
            return payload
        size = torch.tensor([len(payload or b"")], device=self.device)
        dist.broadcast(size, source)
        content = torch.empty(int(size), dtype=torch.uint8, device=self.device)
        if self.rank == source:
            content.copy_(torch.frombuffer(bytearray(payload or b""), dtype=torch.uint8))
        dist.broadcast(content, source)
        return content.cpu().numpy().tobytes()

    def require_equal(self, what: str, value: str) -> None:
        """Raise `RuntimeError` naming the hosts if `value` is not the same on every rank."""
        found = self.gather((socket.gethostname(), value))
        if len({digest for _, digest in found}) > 1:
            shown = ", ".join(
                f"rank {rank} on {host}: {digest[:12]}" for rank, (host, digest) in enumerate(found)
            )
            raise RuntimeError(f"{what} differs between ranks ({shown}); training would diverge")


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the run's nodes this is."""

    index: int
    nodes: int


def place_of_node() -> Place | None:
    """This node's place where nodes train by themselves, else None."""
    place = os.environ.get("ORCHESTRATE_ROUNDS")
    if not place:
        return None
    index, _, nodes = place.partition("/")
    return Place(int(index), int(nodes))


@contextmanager
def joined_world(device: str, timeout_s: int) -> Iterator[World]:
    """Join the process group that the launcher's environment describes, if there is one."""
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = choose_device(device, local_rank)
    if chosen.type == "cuda":
        torch.set_float32_matmul_precision("high")
    if size > 1:
        dist.init_process_group(
            "nccl" if chosen.type == "cuda" else "gloo",
            timeout=timedelta(seconds=timeout_s),
            device_id=chosen if chosen.type == "cuda" else None,
        )
    yield World(
        rank=rank,
        local_rank=local_rank,
        size=size,
        device=chosen,
        run_size=int(os.environ.get("ORCHESTRATE_WORLD_SIZE", "0")),
        first=int(os.environ.get("ORCHESTRATE_FIRST_RANK", "0")),
    )
    if size > 1:  # not after a failure: the other ranks would not take part
        dist.destroy_process_group()
