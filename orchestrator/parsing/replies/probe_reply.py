"""A node's answer to ``probe`` made into facts. The node is not trusted: types, sizes and text are
checked, and nothing of what it says is believed to be short, printable or sane.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, StringConstraints
from pydantic import ValidationError as Invalid

from orchestrator.core.base.errors import PreflightError
from orchestrator.core.model.facts import Disk, Facts, Interface
from orchestrator.parsing.replies.answers import (
    STRICT,
    Address,
    Bytes,
    CpuList,
    Note,
    Text,
    Variables,
    printable,
)

DEVICES = ("gpus", "hcas", "paths", "p2p", "fabric_manager", "xids")
MAX_NOTE = 1000


class _Answer(BaseModel):
    model_config = STRICT


class _Interface(_Answer):
    name: Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(printable)]
    up: bool
    loopback: bool = False
    addresses: Annotated[list[Address], Field(max_length=256)] = []
    speed_mbit: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    mtu: Annotated[int, Field(ge=0, le=1 << 32)] = 0
    virtual: bool | None = None


class _Disk(_Answer):
    path: Note
    kind: Text = ""
    total_bytes: Bytes = 0
    free_bytes: Bytes = 0


class _Facts(_Answer):
    hostname: Text
    boot_id: Text = ""
    host_id: Text = ""
    cpus: Annotated[int, Field(ge=1, le=65536)] = 1
    memory_bytes: Bytes = 0
    disk_free_bytes: Bytes = 0
    memlock_bytes: Annotated[int, Field(ge=0, lt=1 << 64)] | None = None
    driver: Text = ""
    interfaces: Annotated[list[_Interface], Field(max_length=1024)] = []
    route_address: Address
    agent_python: Text = ""
    modules: Annotated[dict[Text, Text], Field(max_length=256)] = {}
    wall_clock: Annotated[float, Field(ge=0, le=1e11)]
    gpu_source: Text = ""
    cuda: Text = ""
    interpreter: Note = ""
    peermem: Text | None = None
    dmabuf: bool | None = None
    kernel: Text = ""
    system: Text = ""
    container: Text = ""
    virtual_machine: Text | None = None
    shm_bytes: Bytes | None = None
    hugepages_bytes: Bytes | None = None
    disks: Annotated[list[_Disk], Field(max_length=64)] = []
    numa: Annotated[list[CpuList], Field(max_length=1024)] = []
    nccl_conf: Variables = {}
    exports: Variables = {}


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
        devices = _devices(reply["facts"])
    except Invalid as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise PreflightError(
            f"the node's answer to the probe makes no sense: {field[:80]}",
            id="OR-PROBE-001",
            where=node,
            why=printable(first["msg"])[:200],
            remedy="report this with the node's distribution and python3 version",
        ) from None
    found = answer.facts
    # The node read its clock when the request arrived and then took its time.
    middle = (asked + answered - answer.elapsed_s) / 2
    return Facts(
        node=node,
        **{name: getattr(found, name) for name in _PLAIN},
        **_parts(found),
        **devices,
        clock_offset_s=found.wall_clock - middle,
        round_trip_s=max(0.0, answered - asked - answer.elapsed_s),
        notes=tuple(note[:MAX_NOTE] for note in answer.notes),
    )


# Fields that are the same here and in the core; the others are built part by part.
_BUILT = frozenset({"interfaces", "disks", "numa", "wall_clock"})
_PLAIN = tuple(name for name in _Facts.model_fields if name not in _BUILT)


def _parts(found: _Facts) -> dict[str, Any]:
    return {
        "interfaces": tuple(_interface(interface) for interface in found.interfaces),
        "disks": tuple(Disk(**disk.model_dump()) for disk in found.disks),
        "numa": tuple(found.numa),
    }


def _devices(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What only nodes with devices tell: the others need not wait for its schema to be built."""
    told = {name: raw[name] for name in DEVICES if raw.get(name) not in (None, [])}
    if not told:
        return {"xids": ()} if raw.get("xids") == [] else {}
    from orchestrator.parsing.replies.device_reply import parse_devices

    return parse_devices(told, xids_known=raw.get("xids") is not None)


def _interface(found: _Interface) -> Interface:
    return Interface(**found.model_dump(exclude={"addresses"}), addresses=tuple(found.addresses))
