"""A node's answer to ``probe`` made into facts. The node is not trusted: types, sizes and text are
checked by the fields' own bounds, and nothing of what it says is believed to be short or sane.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from orchestrator.core.base.bounds import Address, Between, Chars, Items
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.model.facts import Facts
from orchestrator.parsing.replies.records import InvalidReply, printable_text, read_record

DAY_S = 86400.0
MAX_NOTE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    """What stands beside the facts. ``elapsed_s``: from the request's arrival to the answer."""

    elapsed_s: Annotated[float, Between(0, DAY_S)] = 0.0
    notes: Annotated[tuple[Annotated[str, Chars(4096)], ...], Items(64)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moment:
    """What facts must have when a node tells them itself. ``wall_clock``: seconds since 1970."""

    wall_clock: Annotated[float, Between(0, 1e11)]
    route_address: Address


def parse_facts(node: str, reply: Mapping[str, Any], *, asked: float, answered: float) -> Facts:
    """The facts in ``reply``. ``asked`` and ``answered`` are our wall clock around the request.

    Raises :class:`PreflightError` that names the first field that makes no sense.
    """
    try:
        return _parse_facts(node, reply, asked=asked, answered=answered)
    except InvalidReply as error:
        raise PreflightError(
            f"invalid reply to the probe: {printable_text(error.where)[:80]}",
            id="OR-PROBE-001",
            where=node,
            why=printable_text(error.why)[:200],
            remedy="report this with the node's distribution and python3 version",
        ) from None


def _parse_facts(node: str, reply: Mapping[str, Any], *, asked: float, answered: float) -> Facts:
    around = read_record(_Reply, reply, "reply")
    told = reply.get("facts")
    moment = read_record(_Moment, told, "facts")
    # The node read its clock when the request arrived and then took its time.
    middle = (asked + answered - around.elapsed_s) / 2
    return read_record(
        Facts,
        told,
        "facts",
        node=node,
        clock_offset_s=moment.wall_clock - middle,
        round_trip_s=max(0.0, answered - asked - around.elapsed_s),
        notes=tuple(note[:MAX_NOTE] for note in around.notes),
    )
