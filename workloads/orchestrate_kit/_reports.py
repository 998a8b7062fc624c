"""Metrics, progress, artifacts and checkpoints: JSON for the coordinator, else lines to read."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import time
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional, Set, Tuple, Union

    Number = Union[int, float]

MAX_LINE_BYTES = 64 * 1024
MAX_NAME = 128
MAX_WARNINGS = 100


def rank() -> int:
    """This process's global rank; 0 outside of a launcher."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many ranks there are; 1 outside of a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank_in_run() -> int:
    """This rank's number in the run; `RANK` counts from 0 on nodes that are worlds of their own."""
    return rank() + int(os.environ.get("ORCHESTRATE_FIRST_RANK", "0"))


def output_dir() -> Path:
    """Where artifacts go; what is in it at the end is collected from every node."""
    return _directory("ORCHESTRATE_OUTPUT_DIR", "output")


def checkpoint_dir() -> Path:
    """Where checkpoints go; it survives from one attempt of a run to the next, on this node."""
    return _directory("ORCHESTRATE_CHECKPOINT_DIR", "checkpoints")


def metric(name: str, value: Number, unit: str = "", step: Optional[int] = None) -> None:
    """A measured figure. Without ``step`` it is final; with it, a point of a series.

    NaN and infinity are left out, with a warning: telemetry must not end a training. A final figure
    that is left out passes no gate. Raises ``ValueError`` for a bad name, or a step that is not a
    whole number.
    """
    place = None if step is None else plain_scalar("a step", step)
    if place is not None and (isinstance(place, bool) or not isinstance(place, int)):
        raise ValueError("a step is a whole number, not %r" % (step,))
    number = finite_or_none(checked_name(name), value)
    if number is not None:
        write_record({"type": "metric", "name": name, "value": number, "unit": unit, "step": place})


def artifact(path: Union[str, Path], name: Optional[str] = None) -> None:
    """Announce a finished file below :func:`output_dir`. Raises ``ValueError``, ``OSError``."""
    root = output_dir().resolve()
    file = Path(path).resolve()
    try:
        relative = str(file.relative_to(root))
    except ValueError:
        raise ValueError("%s is not below %s" % (file, root)) from None
    digest, size = _digest(file)
    write_record(
        {
            "type": "artifact",
            "name": checked_name(name or relative),
            "path": relative,
            "bytes": size,
            "sha256": digest,
        }
    )


def checkpoint(path: Union[str, Path], step: int) -> None:
    """Announce a complete checkpoint. Raises ``ValueError``."""
    write_record({"type": "checkpoint", "path": str(path), "step": int(step)})


def replace_json(path: Path, document: Any) -> None:
    """Written anew in one step: whoever reads it finds the last whole one. Raises ``OSError``."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document))
    partial.replace(path)


def _directory(variable: str, fallback: str) -> Path:
    path = Path(os.environ.get(variable) or fallback)
    path.mkdir(parents=True, exist_ok=True)
    return path


def checked_name(name: object) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ValueError("not a name of at most %d printable characters: %r" % (MAX_NAME, name))
    return name


def plain_scalar(name: str, value: Any) -> Any:
    """The plain number in a scalar of NumPy or torch; everything else as it is."""
    item = getattr(value, "item", None)
    if not callable(item):
        return value
    try:
        return item()
    except (ValueError, RuntimeError):
        raise ValueError("%s is not one number: %.80r" % (name, value)) from None


_warned: Set[str] = set()


def finite_or_none(name: str, value: Number) -> Optional[float]:
    """The number, or None if it is none; warned of once for each name."""
    number = float(plain_scalar(name, value))
    if math.isfinite(number):
        return number
    if name not in _warned and len(_warned) < MAX_WARNINGS:
        _warned.add(name)
        sys.stderr.write("orchestrate_kit: %s is %r: it is not reported\n" % (name, number))
    return None


def _digest(file: Path) -> Tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    with file.open("rb") as stream:
        for chunk in iter(lambda: stream.read(1024 * 1024), b""):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def write_record(record: Dict[str, Any]) -> None:
    """One line by one write, so that lines of several threads or processes never mix."""
    folder = os.environ.get("ORCHESTRATE_REPORT_DIR")
    if not folder:
        _print(record)
        return
    line = json.dumps({**record, "t": time.time()}, allow_nan=False).encode()
    if len(line) >= MAX_LINE_BYTES:
        raise ValueError("a record of %d bytes; at most %d" % (len(line), MAX_LINE_BYTES))
    append_line(os.path.join(folder, "rank-%d.jsonl" % rank_in_run()), line)


def append_line(path: str, line: bytes, fresh: bool = False) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    fd = os.open(path, flags | os.O_TRUNC if fresh else flags, 0o600)
    try:
        os.write(fd, line + b"\n" if line else line)
    finally:
        os.close(fd)


def _print(record: Dict[str, Any]) -> None:
    if rank():
        return
    kind = record["type"]
    if kind == "metric":
        step = "" if record["step"] is None else " at step %d" % record["step"]
        text = "%s = %g %s%s" % (record["name"], record["value"], record["unit"], step)
    elif kind == "energy":
        text = _energy_text(record)
    elif kind == "progress":
        shown = " ".join("%s=%s" % item for item in record["fields"].items())
        text = "%s %g/%g %s" % (record["unit"], record["done"], record["total"], shown)
    else:
        text = "%s %s" % (kind, record["path"])
    if text:
        sys.stdout.write(text.rstrip() + "\n")
        sys.stdout.flush()


def _energy_text(record: Dict[str, Any]) -> str:
    """Of the end of a measured window with GPUs."""
    gpus, seconds = record.get("gpus"), record["seconds"]
    if not record["final"] or not gpus:
        return ""
    known = [gpu["joules"] for gpu in gpus if gpu["joules"] is not None]
    text = "energy not measured"
    if len(known) == len(gpus):
        joules = sum(known)
        text = "energy = %.6g J, %.5g W on average (GPU board power, NVML)" % (
            joules, joules / seconds,
        )  # fmt: skip
    return "; ".join([text, *record["problems"]])
