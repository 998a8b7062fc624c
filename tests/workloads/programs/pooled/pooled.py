"""Writes what the coordinator makes one figure of: the first node one number, the others ten."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import orchestrate_kit as kit


@dataclass(frozen=True)
class Settings:
    """Whether the last node leaves nothing."""

    broken: bool


settings = kit.parse(Settings)
numbers = [1] if kit.rank() == 0 else [10] * 10
if not (settings.broken and kit.rank() == kit.world_size() - 1):
    (kit.output_dir() / "numbers.json").write_text(json.dumps(numbers))
kit.metric("own_median", numbers[0])
