"""What the node's InfiniBand or RoCE ports can carry, from sysfs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

SYSFS = Path("/sys/class/infiniband")


def ports(root: Path = SYSFS) -> list[dict[str, Any]]:
    """Every active port: device, link layer, GB/s in one direction."""
    return list(_active(root))


def _active(root: Path) -> Iterator[dict[str, Any]]:
    with suppress(OSError):
        for folder in sorted(root.glob("*/ports/*")):
            state = (folder / "state").read_text(encoding="ascii")
            rate = re.match(r"([\d.]+) Gb/sec", (folder / "rate").read_text(encoding="ascii"))
            if "ACTIVE" in state and rate:
                layer = (folder / "link_layer").read_text(encoding="ascii").strip()
                gb_s = float(rate[1]) / 8
                yield {"device": folder.parts[-3], "link_layer": layer, "gb_s": gb_s}
