"""The finetune script where a device counts energy: 250 W all the time. Its folder comes first."""

from __future__ import annotations

import sys
import time
from pathlib import Path

script = Path(sys.argv.pop(1))
sys.path.insert(0, str(script.parents[1]))
sys.argv[0] = str(script)

from finetune import train  # noqa: E402 - after its folder
from finetune.training.accounting import EnergyMeter  # noqa: E402

WATTS = 250.0


def joules(_meter: EnergyMeter) -> float:
    return WATTS * time.monotonic()


EnergyMeter.joules = joules
train.main()
