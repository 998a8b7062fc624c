"""Checkpoints: complete or not there, verified before use, agreed on by all ranks.

A checkpoint is a folder `step-00000050` with the state and, beside it, a manifest that holds the
state's digest. It is written under another name, flushed to disk and renamed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from ..base.world import World

STATE, MANIFEST = "state.pt", "manifest.json"
_NAME = re.compile(r"step-(\d{8})")


def save_checkpoint(
    root: Path, step: int, state: dict[str, Any], training: str, *, own: bool = False
) -> Path:
    """Write the state after `step`; `training` is the digest of the settings it belongs to. `own`:
    other nodes' states after that step are not the same.
    """
    target = root / f"step-{step:08d}"
    folder = root / f".{target.name}.{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    content = io.BytesIO()
    torch.save(state, content)
    payload = content.getbuffer()
    manifest = {
        "step": step,
        "training": training,
        "own": own,
        "bytes": len(payload),
        "sha256": hashlib.sha256(payload).hexdigest(),
    }
    _write_durably(folder / STATE, payload)
    _write_durably(folder / MANIFEST, json.dumps(manifest).encode())
    shutil.rmtree(target, ignore_errors=True)  # one that was found to be torn
    folder.rename(target)
    _flush_folder(root)
    return target


def prune_checkpoints(root: Path, keep: int) -> None:
    """Remove all but the newest `keep`, and what writers that were killed left behind."""
    for leftover in root.glob(".step-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for folder in _checkpoints(root)[keep:]:
        shutil.rmtree(folder, ignore_errors=True)


def newest_checkpoint(root: Path, training: str) -> tuple[int, bytes] | None:
    """Return (step, state) of the newest complete checkpoint of this training on this node."""
    found = _newest(root, training)
    return found and found[:2]


def _newest(root: Path, training: str) -> tuple[int, bytes, bool] | None:
    """(step, state, whether it is this node's own)."""
    for folder in _checkpoints(root):
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            payload = (folder / STATE).read_bytes()
            step = int(manifest["step"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if manifest.get("training") != training:
            continue
        if manifest.get("sha256") == hashlib.sha256(payload).hexdigest():
            return step, payload, manifest.get("own") is True
    return None


def agree_on_checkpoint(root: Path, training: str, world: World) -> dict[str, Any] | None:
    """Return the newest state that any node has, on every rank, or None to start afresh.

    Nodes share no disk: one of them may be new, or may have lost or torn its newest checkpoint.
    """
    step, payload, own = _newest(root, training) or (0, b"", False)
    found = world.gather((step, own))
    steps = [step for step, _ in found]
    newest = max(steps)
    if newest == 0:
        return None
    if min(steps) < newest or any(own for _, own in found):
        payload = world.share(payload, source=steps.index(newest))
    state: dict[str, Any] = torch.load(
        io.BytesIO(payload), map_location=world.device, weights_only=True
    )
    return state


def _checkpoints(root: Path) -> list[Path]:
    """Folders that are named like checkpoints, newest first."""
    named = [folder for folder in root.glob("step-*") if _NAME.fullmatch(folder.name)]
    return sorted(named, reverse=True)


def _write_durably(path: Path, content: bytes | memoryview) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
