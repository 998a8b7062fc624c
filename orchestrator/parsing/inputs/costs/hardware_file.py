"""Files of GPUs, links and model sizes, in YAML; of a model also its ``config.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from orchestrator.core.base.errors import UsageError
from orchestrator.core.costs.hardware import GpuHardware, GpuKind, Latency
from orchestrator.core.costs.model_shape import ModelShape
from orchestrator.parsing.inputs.costs.quantities import (
    Compute,
    Duration,
    Name,
    Ratio,
    Size,
    SourcedRate,
    Text,
    Watts,
)
from orchestrator.parsing.inputs.validation import Strict, validate_document
from orchestrator.parsing.inputs.yaml_source import parse_yaml


class GpuLinkEntry(SourcedRate):
    """What joins GPUs of a node: bytes in one direction for each of them."""

    kind: Literal["nvlink", "pcie"]


class SwitchEntry(SourcedRate):
    """What an all-reduce in the switch moves, and from how many GPUs on it is chosen."""

    from_gpus: int = Field(ge=2, le=1024)


class GpuFile(Strict):
    """One kind of GPU."""

    name: Name
    names: list[Name] = Field(min_length=1, max_length=20)
    bf16: Compute
    memory: Size
    bandwidth: SourcedRate
    power: Watts
    idle: Watts
    link: GpuLinkEntry
    switch: SwitchEntry | None = None


class LatencyEntry(Strict):
    """How long a collective takes to start, and each of its steps."""

    start: Duration
    hop: Duration
    efficiency: Ratio | None = None


class LinksFile(Strict):
    """The kinds of links."""

    nvlink: LatencyEntry
    pcie: LatencyEntry
    infiniband: LatencyEntry
    ethernet: LatencyEntry


class ModelFile(Strict):
    """The sizes of a model. ``hub``: its names there."""

    name: Name
    hub: list[Name] = Field(default_factory=list, max_length=50)
    source: Text
    layers: int = Field(ge=1, le=1000)
    hidden: int = Field(ge=1, le=1 << 20)
    heads: int = Field(ge=1, le=4096)
    kv_heads: int = Field(ge=1, le=4096)
    head_size: int = Field(ge=1, le=4096)
    intermediate: int = Field(ge=1, le=1 << 22)
    vocabulary: int = Field(ge=1, le=1 << 24)
    tied: bool
    experts: int = Field(default=0, ge=0, le=65536)
    active_experts: int = Field(default=0, ge=0, le=65536)


def load_gpu(data: bytes, source: str) -> GpuKind:
    """Raises :class:`UsageError` that lists every problem with file, line and nearest key."""
    file = validate_document(GpuFile, parse_yaml(data, source))
    device = GpuHardware(
        name=file.name,
        names=tuple(file.names),
        flops={"bf16": file.bf16.si},
        memory_bytes=file.memory.si,
        memory_bytes_s=file.bandwidth.si,
        power_w=file.power.si,
        idle_w=file.idle.si,
    )
    return GpuKind(
        device=device,
        link=file.link.kind,
        link_bytes_s=file.link.si,
        switch_bytes_s=file.switch.si if file.switch else 0.0,
        switch_from=file.switch.from_gpus if file.switch else 0,
    )


def load_links(data: bytes, source: str) -> dict[str, Latency]:
    """By kind of link. Raises :class:`UsageError`, as :func:`load_gpu`."""
    file = validate_document(LinksFile, parse_yaml(data, source))
    return {kind: _latency(getattr(file, kind)) for kind in LinksFile.model_fields}


def _latency(entry: LatencyEntry) -> Latency:
    return Latency(
        start_s=entry.start.si,
        hop_s=entry.hop.si,
        efficiency=entry.efficiency.si if entry.efficiency else 1.0,
    )


def load_model(data: bytes, source: str) -> ModelShape:
    """Raises :class:`UsageError`, as :func:`load_gpu`."""
    file = validate_document(ModelFile, parse_yaml(data, source))
    return ModelShape(**file.model_dump(exclude={"hub", "source"}))


def shape_of_config(data: bytes, source: str) -> ModelShape:
    """From the ``config.json`` of transformers. Raises :class:`UsageError` where a size is missing
    or is no number.
    """
    try:
        config = json.loads(data)
        return _shape(config, source)
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        what = f"not the configuration of a decoder: {type(error).__name__}: {error}"
        raise UsageError(what, id="model.config", where=source) from None


def _shape(config: Mapping[str, Any], source: str) -> ModelShape:
    heads, hidden = _number(config, "num_attention_heads"), _number(config, "hidden_size")
    experts = int(config.get("num_experts") or config.get("num_local_experts") or 0)
    width = config.get("moe_intermediate_size") if experts else None
    return ModelShape(
        name=source,
        layers=_number(config, "num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_size=int(config.get("head_dim") or hidden // heads),
        intermediate=int(width or _number(config, "intermediate_size")),
        vocabulary=_number(config, "vocab_size"),
        tied=bool(config.get("tie_word_embeddings", False)),
        experts=experts,
        active_experts=int(config.get("num_experts_per_tok") or 0) if experts else 0,
    )


def _number(config: Mapping[str, Any], key: str) -> int:
    value = config[key]
    if not isinstance(value, int) or not 0 < value < 1 << 40:
        raise ValueError(f"{key} is {value!r}")
    return value
