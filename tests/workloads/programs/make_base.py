"""Two ranks are two nodes with one cache, as in a shared home, and the last rank is the first to
make the base; prints what each of them finds.
"""

from __future__ import annotations

import os
import sys

sys.path.append(sys.argv[1])  # the folder of the workloads and the kit

import orchestrate_kit as kit
from finetune.base.settings import Settings
from finetune.base.world import joined_world
from finetune.model import tiny_base

with joined_world("cpu", timeout_s=120) as world:
    settings = kit.parse(Settings, [f"--cache-dir={sys.argv[2]}", "--base-steps=1"])
    for rank in reversed(range(world.size)):
        if world.rank == rank:
            folder = tiny_base.ensure_base(settings)
            sys.stdout.write(f"{sorted(file.name for file in folder.iterdir())}\n")
        world.barrier()

# What is tested is on the disk: torch's threads have been seen to abort an interpreter that ends.
sys.stdout.flush()
os._exit(0)
