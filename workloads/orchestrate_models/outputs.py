"""What a workload leaves: figures of the run, and documents in its outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orchestrate_kit as kit

# Value and unit by name.
Figures = dict[str, tuple[float, str]]


def report_figures(figures: Figures) -> None:
    for name, (value, unit) in figures.items():
        kit.metric(name, value, unit)


def write_document(name: str, document: Mapping[str, Any]) -> None:
    """As JSON, announced as an artifact."""
    path = kit.output_dir() / name
    path.write_text(json.dumps(document) + "\n", encoding="utf-8")
    kit.artifact(path)
