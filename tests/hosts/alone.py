"""One rank that trains alone what ranks on hosts train together, and the base that it makes."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from virtual_hosts_lib.hosts import VirtualHosts

from tests.workloads.conftest import FINETUNE, NodeFolder, node_folder, succeed

CACHE = "cache"


def train_alone(folder: Path, settings: Sequence[str]) -> NodeFolder:
    """A fine-tuning of these ``NAME=VALUE``, to its end. However many ranks share the rows, a
    healthy training takes the same steps.
    """
    node = node_folder(folder)
    options = [f"--{setting.replace('_', '-')}" for setting in settings]
    cache = f"--cache-dir={node.path / CACHE}"
    succeed(node.start(str(FINETUNE / "train.py"), *options, cache))
    return node


def give_base(node: NodeFolder, hosts: VirtualHosts, names: Iterable[str]) -> None:
    """Hosts need not make the base that ``node`` made."""
    for name in names:
        cache = hosts.home(name) / ".cache" / "orchestrate-finetune"
        shutil.copytree(node.path / CACHE, cache, dirs_exist_ok=True)
