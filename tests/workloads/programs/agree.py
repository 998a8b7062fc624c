"""Each rank is a node with a checkpoint folder of its own; prints the state that they agree on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.append(sys.argv[1])

from finetune.base.world import joined_world
from finetune.training.checkpoints import agree_on_checkpoint

with joined_world("cpu", timeout_s=60) as world:
    root = Path(sys.argv[2]) / f"node-{os.environ['RANK']}"
    state = agree_on_checkpoint(root, "training", world)
    sys.stdout.write(f"rank {world.rank} has {state}\n")
