"""Two ranks are two nodes with one cache, as in a shared home, and the last rank is the first to
make the base; prints what each of them finds.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path += [sys.argv[1], str(Path(sys.argv[1]).parent)]  # the workload, and the kit beside it

import tiny_base
from settings import Settings
from world import joined_world

with joined_world("cpu", timeout_s=120) as world:
    settings = Settings(cache_dir=sys.argv[2], base_steps=1)
    for rank in reversed(range(world.size)):
        if world.rank == rank:
            folder = tiny_base.ensure_base(settings)
            sys.stdout.write(f"{sorted(file.name for file in folder.iterdir())}\n")
        world.barrier()

# What is tested is on the disk: torch's threads have been seen to abort an interpreter that ends.
sys.stdout.flush()
os._exit(0)
