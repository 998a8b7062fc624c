"""Locks of runs that are about to begin: taken all or none, held until a supervisor has them."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager

from orchestrator.node_agent.attempt.locks import (
    EXCLUSIVE,
    SHARED,
    LockHeld,
    LockRoom,
    holder_record,
    remove_records,
    write_record,
)
from orchestrator.node_agent.base import lease_file as lease
from orchestrator.node_agent.base.agent_errors import BAD_REQUEST, BUSY, AgentFault
from orchestrator.node_agent.base.login import user_name
from orchestrator.node_agent.base.node_layout import NodeLayout, RunLayout, check_name
from orchestrator.node_agent.base.sysfs import boot_id
from orchestrator.node_agent.base.wire import read_field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    Request = Mapping[str, Any]
    Wanted = tuple[str, str]  # the lock's name and mode

MAX_LOCKS = 64


def check_locks(request: Request) -> list[Wanted]:
    """``request["locks"]`` in the order in which they are taken."""
    given = read_field(request, "locks", list, [])
    if len(given) > MAX_LOCKS or not all(isinstance(entry, dict) for entry in given):
        raise AgentFault(BAD_REQUEST, f"'locks' must be at most {MAX_LOCKS} objects")
    wanted = {}
    for entry in given:
        name, mode = check_name(entry.get("name"), "lock name"), entry.get("mode")
        if mode not in (EXCLUSIVE, SHARED) or name in wanted:
            raise AgentFault(BAD_REQUEST, f"lock {name} is named twice, or its mode is unknown")
        wanted[name] = str(mode)
    return sorted(wanted.items())


def describe_holder(run: RunLayout, request: Request) -> dict[str, Any]:
    """Who we are, for those who come later. ``share`` tells runs of the same name apart."""
    coordinator = read_field(request, "coordinator", str, None)
    if coordinator is None:
        coordinator = os.environ.get("SSH_CLIENT", "").partition(" ")[0]
    return {
        "run": request["run"],
        "node": request["node"],
        "user": user_name(),
        "since": time.time(),
        "coordinator": "".join(c for c in coordinator if c.isprintable())[:200],
        "share": run.root,
        "boot_id": boot_id(),
        **holder_record("agent"),
    }


class Reservation:
    """What one share of a run holds: lock -> descriptor, -1 where its own supervisor has it."""

    def __init__(self, room: LockRoom, holder: dict[str, Any]) -> None:
        self.room = room
        self.holder = holder
        self.held: dict[Wanted, int] = {}
        self.kept = room.keep()

    @property
    def descriptors(self) -> list[int]:
        return [self.kept, *(fd for fd in self.held.values() if fd >= 0)]

    @property
    def records(self) -> dict[str, dict[str, Any]]:
        """Path -> what stands there, of the locks that we have."""
        share = self.holder["share"]
        return {
            self.room.record(name, share): {**self.holder, "mode": mode}
            for (name, mode), fd in self.held.items()
            if fd >= 0
        }

    def take(self, wanted: Sequence[Wanted]) -> None:
        """Have exactly these; on :class:`LockHeld` what was had before."""
        new: dict[Wanted, int] = {}
        try:
            for name, mode in wanted:
                if self.held.get((name, mode), -1) < 0:
                    new[name, mode] = self.room.take(name, mode, self.holder["share"])
        except BaseException:
            _close(new.values())
            raise
        surplus = {lock: fd for lock, fd in self.held.items() if lock not in wanted}
        remove_records([self.room.record(name, self.holder["share"]) for name, _ in surplus])
        kept = {lock: fd for lock, fd in self.held.items() if lock in wanted}
        self.held = {**kept, **new}
        _close(surplus.values())
        for path, record in self.records.items():
            write_record(path, record)

    def close(self) -> None:
        _close(self.descriptors)


def _close(descriptors: Iterable[int]) -> None:
    for fd in descriptors:
        if fd >= 0:
            os.close(fd)


class Reservations:
    """What this agent holds for runs that have not begun, by share. They end with its process.

    Whoever calls holds the run's lock, so that no two requests change the same entry at once.
    """

    def __init__(self) -> None:
        self._held: dict[str, Reservation] = {}

    def take(self, wanted: Sequence[Wanted], holder: dict[str, Any]) -> Reservation:
        """Hold exactly ``wanted``, all or nothing. Raises :class:`LockHeld`."""
        share = holder["share"]
        known = self._held.get(share)
        reservation = known or Reservation(LockRoom.open(), holder)
        try:
            reservation.take(wanted)
        except BaseException:
            if known is None:
                reservation.close()
            raise
        self._held[share] = reservation
        return reservation

    def release(self, share: str) -> bool:
        """Let go of what ``share`` has reserved; whether there was anything."""
        reservation = self._held.pop(share, None)
        if reservation is None:
            return False
        remove_records(list(reservation.records))
        reservation.close()
        return True

    @contextmanager
    def lent(self, wanted: Sequence[Wanted], holder: dict[str, Any]) -> Iterator[Reservation]:
        """The locks for a supervisor to inherit; ours no longer once it has begun.

        If it does not begin, what was reserved before stays so.
        """
        share = holder["share"]
        reserved = share in self._held
        reservation = self.take(wanted, holder)
        del self._held[share]  # the records are the supervisor's soon, not ours to withdraw
        try:
            if -1 in reservation.held.values():
                raise AgentFault(BUSY, "another attempt of this run still has the locks")
            yield reservation
        except BaseException:
            self._held[share] = reservation
            if not reserved:
                self.release(share)
            raise
        reservation.close()

    def close(self) -> None:
        """The channel has ended."""
        for share in list(self._held):
            self.release(share)


def reserve_locks(
    reservations: Reservations, layout: NodeLayout, request: Request
) -> dict[str, Any]:
    """Take all of the locks, or tell who has the first that is not to be had."""
    run = layout.run(request.get("run"), request.get("node"))
    wanted, holder = check_locks(request), describe_holder(run, request)
    with lease.claimed_run(run, lease.check_epoch(request)):
        try:
            reservations.take(wanted, holder)
        except LockHeld as occupied:
            return {"reserved": False, "lock": occupied.lock, "holder": occupied.holder}
    return {"reserved": True}


def release_locks(
    reservations: Reservations, layout: NodeLayout, request: Request
) -> dict[str, Any]:
    """Let go of what this channel reserved; a launch under way is waited for."""
    run = layout.run(request.get("run"), request.get("node"))
    if not os.path.isdir(run.root):
        return {"released": False}
    with lease.run_lock(run):
        return {"released": reservations.release(run.root)}
