"""A node's answer to ``probe`` made into facts. The node is not trusted: types, sizes and text are
checked, and nothing of what it says is believed to be short, printable or sane.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic import ValidationError as Invalid

from orchestrator.core.errors import PreflightError
from orchestrator.core.facts import Facts, Gpu, Hca, Interface

MAX_BYTES = 1 << 60
MAX_TEXT = 256
MAX_NOTE = 1000


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _address(text: str) -> str:
    return str(ipaddress.ip_address(text.partition("%")[0]))


Text = Annotated[str, StringConstraints(max_length=MAX_TEXT), AfterValidator(_printable)]
Note = Annotated[str, StringConstraints(max_length=4096), AfterValidator(_printable)]
Bytes = Annotated[int, Field(ge=0, le=MAX_BYTES)]
Address = Annotated[str, StringConstraints(max_length=64), AfterValidator(_address)]
Pid = Annotated[int, Field(ge=1, le=1 << 31)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}$")]


class _Answer(BaseModel):
    """No conversion between types. An agent of another version may say more: that is ignored."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class _Gpu(_Answer):
    index: Annotated[int, Field(ge=0, le=1023)]
    name: Text
    uuid: Text = ""
    memory_bytes: Bytes = 0
    memory_used_bytes: Bytes = 0
    users: Annotated[list[Pid], Field(max_length=4096)] = []


class _Interface(_Answer):
    name: Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_printable)]
    up: bool
    loopback: bool = False
    addresses: Annotated[list[Address], Field(max_length=256)] = []
    speed_mbit: Annotated[int, Field(ge=0, le=100_000_000)] = 0


class _Hca(_Answer):
    name: Name
    port: Annotated[int, Field(ge=0, le=255)]
    state: Text
    link_layer: Text
    rate_gbit: Annotated[float, Field(ge=0, le=100_000)] = 0.0


class _Facts(_Answer):
    hostname: Text
    boot_id: Text = ""
    host_id: Text = ""
    cpus: Annotated[int, Field(ge=1, le=65536)] = 1
    memory_bytes: Bytes = 0
    disk_free_bytes: Bytes = 0
    memlock_bytes: Annotated[int, Field(ge=0, lt=1 << 64)] | None = None
    gpus: Annotated[list[_Gpu], Field(max_length=256)] = []
    driver: Text = ""
    interfaces: Annotated[list[_Interface], Field(max_length=1024)] = []
    hcas: Annotated[list[_Hca], Field(max_length=256)] = []
    route_address: Address
    agent_python: Text = ""
    modules: Annotated[dict[Text, Text], Field(max_length=256)] = {}
    wall_clock: Annotated[float, Field(ge=0, le=1e11)]


class _Reply(_Answer):
    facts: _Facts
    elapsed_s: Annotated[float, Field(ge=0, le=86400)] = 0.0
    notes: Annotated[list[Note], Field(max_length=64)] = []


def parse_facts(node: str, reply: Mapping[str, Any], *, asked: float, answered: float) -> Facts:
    """The facts in ``reply``. ``asked`` and ``answered`` are our wall clock around the request.

    Raises :class:`PreflightError` that names the first field that makes no sense.
    """
    try:
        answer = _Reply.model_validate(dict(reply))
    except Invalid as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise PreflightError(
            f"the node's answer to the probe makes no sense: {field[:80]}",
            id="OR-PROBE-001",
            where=node,
            why=_printable(first["msg"])[:200],
            remedy="report this with the node's distribution and python3 version",
        ) from None
    found = answer.facts
    # The node read its clock when the request arrived and then took its time.
    middle = (asked + answered - answer.elapsed_s) / 2
    return Facts(
        node=node,
        gpus=tuple(_gpu(gpu) for gpu in found.gpus),
        interfaces=tuple(_interface(interface) for interface in found.interfaces),
        hcas=tuple(Hca(**hca.model_dump()) for hca in found.hcas),
        clock_offset_s=found.wall_clock - middle,
        notes=tuple(note[:MAX_NOTE] for note in answer.notes),
        **found.model_dump(exclude={"gpus", "interfaces", "hcas", "wall_clock"}),
    )


def _gpu(gpu: _Gpu) -> Gpu:
    return Gpu(**gpu.model_dump(exclude={"users"}), users=tuple(sorted(set(gpu.users))))


def _interface(found: _Interface) -> Interface:
    return Interface(**found.model_dump(exclude={"addresses"}), addresses=tuple(found.addresses))
