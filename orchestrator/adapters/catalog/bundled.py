"""Where the workloads, clusters and everything else are that come with this program."""

from __future__ import annotations

from pathlib import Path

import orchestrator


def bundled_root() -> Path:
    """The folder that holds ``workloads/``, ``clusters/``, ``prices/``, ``suites/`` and so on.

    An installed package carries them inside; in a checkout they stand beside the package.
    """
    package = Path(orchestrator.__file__).resolve().parent
    inside = package / "bundled"
    return inside if inside.is_dir() else package.parent


def bundled_kit() -> Path:
    """The package that every script may import; it travels with every job."""
    return bundled_root() / "workloads" / "orchestrate_kit"


def bundled_packages() -> tuple[Path, ...]:
    """The packages that travel with every workload: the kit, inference engines, large models."""
    workloads = bundled_root() / "workloads"
    return bundled_kit(), workloads / "orchestrate_serving", workloads / "orchestrate_models"
