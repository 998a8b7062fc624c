"""The median of all nodes' numbers, which is no mean of their medians."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median

import orchestrate_kit as kit

paths = [Path(folder) / "numbers.json" for folder in sys.argv[1:]]
missing = [str(path) for path in paths if not path.exists()]
kit.metric("median", median(n for p in paths if p.exists() for n in json.loads(p.read_text())))
(kit.output_dir() / "read.txt").write_text(str(len(paths) - len(missing)))
if missing:
    sys.exit(f"POOL-NUMBERS-001: {len(missing)} of {len(paths)} nodes have left no numbers")
