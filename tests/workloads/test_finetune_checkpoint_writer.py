"""Checkpoints are written beside the training, one at a time, from a copy."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.training import checkpoint_writer
from finetune.training.checkpoint_writer import CheckpointWriter
from finetune.training.checkpoints import newest_checkpoint
from tests.time_limits import scaled

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def test_what_changes_after_the_call_is_not_in_it(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, "digest", 2, CPU)
    values, moments = torch.ones(3), {0: {"step": torch.zeros(())}}
    writer.write(4, {"adapter": [values], "optimiser": {"state": moments}, "told": "x"})
    values.fill_(9)
    moments[0]["step"].fill_(9)
    writer.finish()
    assert writer.newest == 4
    found = newest_checkpoint(tmp_path, "digest")
    assert found is not None
    assert found[0] == 4
    (tmp_path / "state").write_bytes(found[1])
    state = torch.load(tmp_path / "state", weights_only=True)
    assert state["adapter"][0].tolist() == [1, 1, 1]
    assert state["optimiser"]["state"][0]["step"] == 0
    assert state["told"] == "x"


def test_the_next_waits_for_the_one_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the training does not wait for the first."""
    go_on, order = threading.Event(), []

    def slow(root: Path, step: int, state: dict[str, Any], training: str, *, own: bool) -> Path:
        assert go_on.wait(scaled(30))
        order.append(step)
        return root / "step"

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", slow)
    writer = CheckpointWriter(tmp_path, "digest", 2, CPU)
    writer.write(1, {})
    assert order == []
    later = threading.Thread(target=writer.write, args=(2, {}))
    later.start()
    go_on.set()
    later.join(scaled(30))
    writer.finish()
    assert order == [1, 2]


def test_what_went_wrong_is_raised_by_the_next_call(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    writer = CheckpointWriter(blocked, "digest", 2, CPU)
    writer.write(1, {})
    with pytest.raises(OSError, match="file"):
        writer.finish()
