"""The captures that a run's nodes sent home, read from its folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from orchestrator.core.captures.recorded import NodeRecord, Samples
from orchestrator.core.model.captures import Capture, CaptureKind
from orchestrator.parsing.captures.sampled import (
    MAX_FILE_BYTES,
    MAX_INDEX_BYTES,
    BadCapture,
    parse_index,
    parse_samples,
)

FOLDER = "captures"  # in a node's outputs
INDEX = "captures.json"
NOTHING_CAME = "its files did not come home"


def read_node(node: str, outputs: Path, captures: Sequence[Capture]) -> NodeRecord:
    """What the sampler of ``node`` left in its ``outputs``; what is wrong with it is in it."""
    folder = outputs / FOLDER
    try:
        index = parse_index(read_bounded(folder / INDEX, MAX_INDEX_BYTES))
    except FileNotFoundError:
        return NodeRecord(node=node, index=None, problem=NOTHING_CAME)
    except (OSError, BadCapture) as error:
        return NodeRecord(node=node, index=None, problem=f"{INDEX}: {error}")
    samples: dict[str, Samples] = {}
    problems: dict[str, str] = {}
    for kind in (c.kind.value for c in captures if c.kind is not CaptureKind.PROFILE):
        try:
            data = read_bounded(folder / f"{kind}.csv", MAX_FILE_BYTES)
            samples[kind] = parse_samples(kind, data, index.began)
        except FileNotFoundError:
            continue
        except (OSError, BadCapture) as error:
            problems[kind] = f"{kind}.csv: {error}"
    return NodeRecord(node=node, index=index, samples=samples, problems=problems)


def read_bounded(path: Path, most: int) -> bytes:
    """A regular file's content, and one byte more than allowed if it is too long."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(path, flags), "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("not a regular file")
        return file.read(most + 1)
