"""A node's answer to ``inspect`` made into evidence and files. The node is not trusted: whatever a
rank that hangs left behind is bounded here, and nothing of it is ever executed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic import ValidationError as Invalid

from orchestrator.core.run.evidence import Collective, Inspection, RankEvidence
from orchestrator.parsing.replies.supervisor_records import BadRecord

DOCUMENT = "inspection.json"
MAX_FILES = 1024
MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
MAX_FRAMES = 8
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
STATES = frozenset("RSDTtZXI?")


def _printable_text(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:200]


def _check_state(text: str) -> str:
    return text if text in STATES else "?" if text else ""


Text = Annotated[str, StringConstraints(max_length=2000), AfterValidator(_printable_text)]
Whole = Annotated[int, Field(ge=0, le=1 << 53)]
Seconds = Annotated[float, Field(ge=0, le=1e11)]


class _Answer(BaseModel):
    """No conversion between types. An agent of another version may say more: that is ignored."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, defer_build=True)


class _Collective(_Answer):
    group: Text
    entered: Whole
    completed: Whole
    operation: Text = ""
    members: Annotated[list[Whole], Field(max_length=4096)] = []


class _Rank(_Answer):
    rank: Whole
    pid: Whole
    state: Annotated[str, StringConstraints(max_length=8), AfterValidator(_check_state)]
    waits_in: Text = ""
    cpu: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    quiet_s: Seconds | None = None
    stack: Annotated[list[Text], Field(max_length=64)] = []
    collectives: Annotated[list[_Collective], Field(max_length=64)] = []
    gpu: Whole | None = None
    lines: Annotated[list[Text], Field(max_length=64)] = []


class _Gpu(_Answer):
    index: Whole
    busy: Annotated[int, Field(ge=0, le=100)] | None = None


class _Document(_Answer):
    ranks: Annotated[list[_Rank], Field(max_length=1024)]
    gpus: Annotated[list[_Gpu], Field(max_length=256)] = []


@dataclass(frozen=True, slots=True)
class ParsedInspection:
    """The evidence, and the files that it was made from: name to content."""

    inspection: Inspection
    files: Mapping[str, bytes]


def parse_inspection(listed: object, payload: bytes) -> ParsedInspection:
    """``listed`` names the files of ``payload`` in order. Raises :class:`BadRecord`."""
    files = _divide_payload(listed, payload)
    try:
        text = files.get(DOCUMENT, b"")
        if len(text) > MAX_DOCUMENT_BYTES:
            raise BadRecord(f"{len(text)} bytes of evidence")
        document = _Document.model_validate(json.loads(text))
    except Invalid as error:
        first = error.errors(include_url=False)[0]
        field = _printable_text(".".join(map(str, first["loc"])))
        raise BadRecord(f"{DOCUMENT}: {field}: {_printable_text(first['msg'])}") from None
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"{DOCUMENT}: {_printable_text(str(error))}") from error
    busy = {gpu.index: gpu.busy for gpu in document.gpus}
    ranks = tuple(_rank_evidence(found, busy) for found in document.ranks)
    return ParsedInspection(Inspection(ranks=ranks), files)


def _rank_evidence(found: _Rank, busy: Mapping[int, int | None]) -> RankEvidence:
    places = (
        Collective(**{**c.model_dump(), "members": tuple(c.members)}) for c in found.collectives
    )
    return RankEvidence(
        rank=found.rank,
        pid=found.pid,
        state=found.state,
        waits_in=found.waits_in,
        cpu=found.cpu,
        quiet_s=found.quiet_s,
        stack=tuple(found.stack[:MAX_FRAMES]),
        collectives=tuple(places),
        gpu_busy=None if found.gpu is None else busy.get(found.gpu),
        last_line=found.lines[-1] if found.lines else "",
    )


def _divide_payload(listed: object, payload: bytes) -> dict[str, bytes]:
    """The payload cut into its files. Names are safe single path components."""
    if not isinstance(listed, list) or len(listed) > MAX_FILES:
        raise BadRecord("no list of files")
    files: dict[str, bytes] = {}
    start = 0
    for entry in listed:
        name, size = _parse_entry(entry)
        if name in files or start + size > len(payload):
            raise BadRecord(f"{name} comes twice, or is cut off")
        files[name] = payload[start : start + size]
        start += size
    return files


def _parse_entry(entry: Any) -> tuple[str, int]:
    name, size = (entry.get("name"), entry.get("bytes")) if isinstance(entry, dict) else ("", 0)
    if not isinstance(name, str) or not FILE_NAME.fullmatch(name):
        raise BadRecord(f"not a file name: {_printable_text(str(name))[:80]}")
    if type(size) is not int or size < 0:
        raise BadRecord(f"{name} has no size")
    return name, size
