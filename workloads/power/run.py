#!/usr/bin/env python3
"""Efficiency baselines of a decoder: throughput, power and price by batch size and precision.

    python run.py
    python run.py --shape qwen2-7b --precisions bf16 --batches 1,8,32 --seconds 10

Each rank measures its own device by itself; rank 0's rows are the run's figures, and the first rank
of each node writes its own into power_efficiency_baselines.md.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

if not __package__:  # a script: its folder is a package then, too, and the kit lies beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = Path(__file__).resolve().parent.name

import torch

import orchestrate_kit as kit
from orchestrate_models.devices import choose_device, device_name

from .measuring import Row, measure_rows
from .parameters import Parameters, batches_of, precisions_of
from .shapes import SHAPES, matrix_parameters, read_config
from .table import markdown_document

TABLE = "power_efficiency_baselines.md"


def run(parameters: Parameters, config: Any, device: torch.device) -> None:
    """Measure, report, write."""
    rows: list[Row] = []
    total = len(precisions_of(parameters)) * len(batches_of(parameters))
    for row in measure_rows(parameters, config, device):
        rows.append(row)
        kit.progress(len(rows), total, "row", precision=row.precision, batch=row.batch)
        if kit.rank() == 0:
            report(row)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        path = kit.output_dir() / TABLE
        size = matrix_parameters(config)
        text = markdown_document(parameters, size, device_name(device), rows)
        path.write_text(text, encoding="utf-8")
        kit.artifact(path)


def report(row: Row) -> None:
    """What was measured of it, and nothing else."""
    figures = {
        "output_tokens_per_s": (row.output_tokens_per_s, "tok/s"),
        "watts": (row.watts, "W"),
        "tokens_per_joule": (row.tokens_per_joule, "tok/J"),
    }
    for name, (value, unit) in figures.items():
        if value is not None:
            kit.metric(f"{name}.{row.precision}.batch{row.batch}", value, unit)


def chosen_config(parameters: Parameters) -> Any:
    """The decoder's configuration. Raises ``ValueError`` and ``OSError``."""
    path = Path(parameters.config).expanduser() if parameters.config else None
    config = read_config(path) if path else SHAPES[parameters.shape]
    tokens = parameters.prompt_tokens + parameters.new_tokens
    if tokens > config.max_position_embeddings:
        raise ValueError(
            f"--prompt-tokens and --new-tokens are {tokens} together, and this decoder has "
            f"positions for {config.max_position_embeddings}"
        )
    return config


def main() -> None:
    """Run as the command line says; a mistake in it ends with status 2."""
    parameters = kit.parse(Parameters)
    try:
        precisions_of(parameters), batches_of(parameters)
        config = chosen_config(parameters)
    except (ValueError, OSError) as error:
        print(f"power: {error}", file=sys.stderr)
        sys.exit(2)
    device = choose_device(parameters.device, int(os.environ.get("LOCAL_RANK", "0")))
    run(parameters, config, device)


if __name__ == "__main__":
    main()
