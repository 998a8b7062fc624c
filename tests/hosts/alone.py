"""One rank that trains alone what ranks on hosts train together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.workloads.conftest import FINETUNE, NodeFolder, node_folder, succeed


def train_alone(folder: Path, settings: Sequence[str]) -> NodeFolder:
    """A fine-tuning of these ``NAME=VALUE``, to its end. However many ranks share the rows, a
    healthy training takes the same steps.
    """
    node = node_folder(folder)
    options = [f"--{setting.replace('_', '-')}" for setting in settings]
    succeed(node.fork(str(FINETUNE / "train.py"), *options))
    return node
