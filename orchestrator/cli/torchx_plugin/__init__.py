"""``torchx run --scheduler orchestrate``: TorchX's apps as runs over an inventory.

pyproject.toml names :func:`create_scheduler` as an entry point of the group ``torchx.schedulers``.
TorchX is imported by ``scheduler`` alone, and that by nobody but TorchX.
"""

from __future__ import annotations

from typing import Any


def create_scheduler(session_name: str, **parameters: object) -> Any:
    """The scheduler as TorchX calls for it; ``parameters`` are those of other schedulers."""
    from orchestrator.cli.torchx_plugin.torchx_scheduler import OrchestrateScheduler

    del parameters
    return OrchestrateScheduler(session_name)
