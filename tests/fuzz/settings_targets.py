"""Readers of what users write beside inventories and workloads, and of what other tools answer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from orchestrator.core.base.errors import OrchestrateError
from orchestrator.parsing.captures.profiled import parse_collectives, parse_profile
from orchestrator.parsing.captures.sampled import COLUMNS, BadCapture, parse_index, parse_samples
from orchestrator.parsing.inputs.baseline_file import load_baseline
from orchestrator.parsing.inputs.costs.coefficient_file import load_coefficients
from orchestrator.parsing.inputs.costs.hardware_file import (
    load_gpu,
    load_links,
    load_model,
    shape_of_config,
)
from orchestrator.parsing.inputs.costs.points_file import load_points
from orchestrator.parsing.inputs.gate_file import load_gates
from orchestrator.parsing.inputs.migration.playbook_file import load_playbook
from orchestrator.parsing.inputs.nights.acknowledgements import parse_acknowledgements
from orchestrator.parsing.inputs.nights.notify_file import load_notify_file
from orchestrator.parsing.inputs.nights.schedule_file import load_schedule, parse_env_file
from orchestrator.parsing.inputs.price_file import load_prices
from orchestrator.parsing.replies import kubernetes_objects
from orchestrator.parsing.replies.load.loadgen_logs import read_performance
from orchestrator.parsing.replies.load.loadgen_records import parse_loadgen_record
from orchestrator.parsing.replies.supervisor_records import BadRecord

_FILES: tuple[Callable[[bytes, str], object], ...] = (
    *(load_baseline, load_gates, load_prices, load_coefficients, load_gpu, load_links, load_model),
    *(shape_of_config, load_playbook, parse_acknowledgements, load_notify_file, load_schedule),
    lambda data, source: list(load_points(data, source)),
    lambda data, source: parse_env_file(data.decode(errors="replace"), source),
)
_KUBECTL: tuple[Callable[[bytes], object], ...] = (
    *(kubernetes_objects.read_json, kubernetes_objects.read_stream, kubernetes_objects.parse_pods),
    *(kubernetes_objects.parse_job, kubernetes_objects.parse_context),
    partial(kubernetes_objects.parse_queue, uid="u"),
    partial(kubernetes_objects.parse_warnings, job="j"),
    kubernetes_objects.parse_denied,
)
_CAPTURES: tuple[Callable[[bytes], object], ...] = (
    *(parse_profile, parse_collectives, parse_index),
    *(partial(parse_samples, kind, began=0.0) for kind in COLUMNS),
)


def settings_files(data: bytes) -> None:
    """Gates, prices, hardware, schedules and the like."""
    for load in _FILES:
        with suppress(OrchestrateError):
            load(data, "f")


def kubectl(data: bytes) -> None:
    """What kubectl prints."""
    for parse in _KUBECTL:
        with suppress(BadRecord):
            parse(data)


def captures(data: bytes) -> None:
    """What samplers and profilers leave."""
    for parse in _CAPTURES:
        with suppress(BadCapture):
            parse(data)


def loadgen(data: bytes) -> None:
    """Logs of LoadGen, and the lines of the process that runs it."""
    text = data.decode(errors="replace")
    read_performance(text, text)
    for line in data.split(b"\n")[:20]:
        parse_loadgen_record(line)
