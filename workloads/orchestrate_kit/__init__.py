"""What a workload's script uses of orchestrate: settings, reports, its share of the samples.

    import orchestrate_kit as kit

Standard library, Python 3.8+. Under orchestrate each rank appends JSON lines to
``$ORCHESTRATE_REPORT_DIR/rank-<RANK>.jsonl``; anywhere else (plain ``torchrun``, plain ``python``)
the same calls print readable lines, and outputs go to ``./output`` and ``./checkpoints``. Only
finite numbers are accepted: a metric that is NaN is a failure of the measurement, and the script
should report it as such.
"""

from __future__ import annotations

from ._collectives import collective
from ._declaration import DeclarationError
from ._devices import device_of_rank
from ._facts import facts
from ._reports import (
    artifact,
    checkpoint,
    checkpoint_dir,
    metric,
    output_dir,
    rank,
    world_size,
)
from ._samples import Sample, complete, fail, first_token, groups
from ._settings import parse
from ._steps import mark_step, profiling, progress
from ._windows import MeasuredWindow, NodeEnergy, measured_window

__all__ = [
    "DeclarationError",
    "MeasuredWindow",
    "NodeEnergy",
    "Sample",
    "artifact",
    "checkpoint",
    "checkpoint_dir",
    "collective",
    "complete",
    "device_of_rank",
    "facts",
    "fail",
    "first_token",
    "groups",
    "mark_step",
    "measured_window",
    "metric",
    "output_dir",
    "parse",
    "profiling",
    "progress",
    "rank",
    "world_size",
]
