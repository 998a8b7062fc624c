"""The file system that runs and history are kept on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from orchestrator.adapters.store.layout import Layout
from orchestrator.core.monitoring import kept_metrics as kept
from orchestrator.core.monitoring.metric import Sample


def home_samples(layout: Layout) -> Iterator[Sample]:
    """Space there; nothing where no home exists yet."""
    try:
        usage = shutil.disk_usage(layout.home)
    except OSError:
        return
    yield kept.HOME_FREE.sample(usage.free)
    yield kept.HOME_SIZE.sample(usage.total)
