"""Checkpoints of the finetune workload: whole or ignored, and the same on every rank."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from finetune.base.world import World
from finetune.training.checkpoints import (
    agree_on_checkpoint,
    newest_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from tests.workloads.conftest import WORKLOADS, node_folder, start_ranks, succeed

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parent / "programs" / "agree.py"
ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))


def _save(root: Path, step: int, training: str = "training") -> Path:
    return save_checkpoint(root, step, {"value": step}, training)


def test_the_newest_complete_checkpoint_is_found(tmp_path: Path) -> None:
    """Of several, the one with most steps."""
    for step in (3, 10, 9):
        _save(tmp_path, step)

    assert agree_on_checkpoint(tmp_path, "training", ALONE) == {"value": 10}


@pytest.mark.parametrize("damage", ["cut", "flip", "no state", "no manifest", "half a manifest"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: str) -> None:
    """A torn or altered checkpoint is never used; the one before it is."""
    _save(tmp_path, 1)
    newest = _save(tmp_path, 2)
    state, manifest = newest / "state.pt", newest / "manifest.json"
    content = state.read_bytes()
    match damage:
        case "cut":
            state.write_bytes(content[:-1])
        case "flip":
            state.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "no state":
            state.unlink()
        case "no manifest":
            manifest.unlink()
        case _:
            manifest.write_bytes(manifest.read_bytes()[:20])

    assert agree_on_checkpoint(tmp_path, "training", ALONE) == {"value": 1}


def test_a_checkpoint_of_another_training_is_not_continued(tmp_path: Path) -> None:
    """Other settings mean another training."""
    _save(tmp_path, 5, training="other")

    assert newest_checkpoint(tmp_path, "training") is None


def test_saving_over_a_damaged_checkpoint_repairs_it(tmp_path: Path) -> None:
    """An attempt that comes by the same step again leaves a whole checkpoint."""
    (_save(tmp_path, 4) / "state.pt").write_bytes(b"")
    _save(tmp_path, 4)

    assert agree_on_checkpoint(tmp_path, "training", ALONE) == {"value": 4}


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    """Old checkpoints go, and so does what a killed writer left."""
    for step in range(1, 6):
        _save(tmp_path, step)
    (tmp_path / ".step-00000006.99").mkdir()
    prune_checkpoints(tmp_path, keep=2)

    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["step-00000004", "step-00000005"]


def test_a_node_without_the_newest_checkpoint_receives_it(tmp_path: Path) -> None:
    """Nodes share no disk: one is new, one is behind; all continue from the newest state."""
    for rank, steps in enumerate(((), (2, 8), (2,))):
        for step in steps:
            _save(tmp_path / f"node-{rank}", step)
    (run,) = start_ranks([node_folder(tmp_path / "run")], 3, PROGRAM, str(WORKLOADS), str(tmp_path))

    lines = succeed(run).splitlines()
    assert sorted(lines) == [f"rank {rank} has {{'value': 8}}" for rank in range(3)]
