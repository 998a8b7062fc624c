"""Studies in YAML: systems, strategies, runtimes, and the bands that their owner expects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field

from orchestrator.core.base.errors import SourceLocation
from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.costs.hardware import GpuKind, Latency, make_fabric
from orchestrator.core.costs.study.study_model import (
    Band,
    Mixture,
    Runtime,
    Strategy,
    Study,
    System,
)
from orchestrator.parsing.inputs.costs.quantities import (
    HourPrice,
    Name,
    Ratio,
    Size,
    Text,
    TokenRate,
    Tokens,
)
from orchestrator.parsing.inputs.validation import Strict, validate_document
from orchestrator.parsing.inputs.yaml_source import (
    Document,
    InputProblem,
    Path,
    parse_yaml,
    refuse_input,
)

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Bound = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Figure = Literal["tokens_per_s", "communication_share", "efficiency", "usd_per_million", "ratio"]


class MixtureEntry(Strict):
    """The model."""

    experts: int = Field(ge=1, le=4096)
    active: int = Field(ge=1, le=4096)
    hidden: int = Field(ge=1, le=1 << 20)
    layers: int = Field(ge=1, le=1000)
    expert_bytes: Size
    dense_bytes: Size
    activation_bytes: Ratio
    sequences: Ratio
    skew: Ratio
    draws: int = Field(default=64, ge=1, le=1000)
    seed: int = Field(default=0, ge=0, le=1 << 32)


class RuntimeEntry(Strict):
    """A program."""

    tokens_per_s: TokenRate
    communication: Ratio
    foreseen: Share = 0.0


class SystemEntry(Strict):
    """GPUs of one kind in one node."""

    gpu: Name
    gpus: int = Field(ge=1, le=1024)
    groups: list[Annotated[int, Field(ge=1, le=1024)]] = Field(min_length=2, max_length=2)
    price: HourPrice


class BandEntry(Strict):
    """What is expected of a figure; no runtime = the ratio of the last one to the first."""

    system: Name
    strategy: Literal["expert", "data", "hybrid"]
    runtime: Name | None = None
    figure: Figure
    low: Bound
    high: Bound


class StudyFile(Strict):
    """The whole file."""

    title: Text
    source: Text
    mixture: MixtureEntry
    reference: Name
    runtimes: dict[Name, RuntimeEntry] = Field(min_length=1, max_length=10)
    systems: dict[Name, SystemEntry] = Field(min_length=1, max_length=50)
    strategies: list[Literal["expert", "data", "hybrid"]] = Field(min_length=1, max_length=3)
    tokens_per_month: Tokens
    bands: list[BandEntry] = Field(default_factory=list, max_length=200)


def load_study(
    data: bytes,
    source: str,
    name: str,
    gpus: Mapping[str, GpuKind],
    links: Mapping[str, Latency],
) -> Study:
    """A study whose GPUs are among ``gpus``. Raises :class:`UsageError` that lists every problem
    with file, line and the nearest name.
    """
    document = parse_yaml(data, source)
    file = validate_document(StudyFile, document)
    problems = [
        InputProblem(document.place(path), what, remedy)
        for path, what, remedy in _problems(file, gpus)
    ]
    if problems:
        refuse_input(problems, source)
    return _study(file, name, gpus, links, document)


def _problems(file: StudyFile, gpus: Mapping[str, GpuKind]) -> Iterator[tuple[Path, str, str]]:
    """Names that lead nowhere, and groups that do not use a system's GPUs."""
    if file.reference not in gpus:
        yield ("reference",), f"unknown GPU {file.reference!r}", did_you_mean(file.reference, gpus)
    for name, system in file.systems.items():
        if system.gpu not in gpus:
            path: Path = ("systems", name, "gpu")
            yield path, f"unknown GPU {system.gpu!r}", did_you_mean(system.gpu, gpus)
        if system.groups[0] * system.groups[1] != system.gpus:
            what = f"groups of {system.groups[0]} x {system.groups[1]} are not {system.gpus} GPUs"
            yield ("systems", name, "groups"), what, "their product is the number of GPUs"
    if file.mixture.active > file.mixture.experts:
        what = f"{file.mixture.active} active experts of {file.mixture.experts}"
        yield ("mixture", "active"), what, "a token uses at most all of them"
    for number, band in enumerate(file.bands):
        yield from _band_problems(file, number, band)


def _band_problems(
    file: StudyFile, number: int, band: BandEntry
) -> Iterator[tuple[Path, str, str]]:
    if band.system not in file.systems:
        remedy = did_you_mean(band.system, file.systems)
        yield ("bands", number, "system"), f"unknown system {band.system!r}", remedy
    if band.strategy not in file.strategies:
        remedy = did_you_mean(band.strategy, file.strategies)
        yield ("bands", number, "strategy"), f"{band.strategy!r} is not studied", remedy
    if band.runtime is None and band.figure != "ratio":
        yield ("bands", number), f"a band of {band.figure} needs a runtime", ""
    if band.runtime is not None and band.runtime not in file.runtimes:
        remedy = did_you_mean(band.runtime, file.runtimes)
        yield ("bands", number, "runtime"), f"unknown runtime {band.runtime!r}", remedy
    if band.low > band.high:
        yield ("bands", number, "low"), f"{band.low:g} is more than {band.high:g}", ""


def _study(
    file: StudyFile,
    name: str,
    gpus: Mapping[str, GpuKind],
    links: Mapping[str, Latency],
    document: Document,
) -> Study:
    return Study(
        name=name,
        title=file.title,
        source=file.source,
        mixture=_mixture(file.mixture),
        reference=gpus[file.reference].device,
        runtimes=tuple(_runtime(key, entry) for key, entry in file.runtimes.items()),
        systems=tuple(
            _system(key, entry, gpus[entry.gpu], links) for key, entry in file.systems.items()
        ),
        strategies=tuple(Strategy(each) for each in file.strategies),
        tokens_per_month=file.tokens_per_month.si,
        bands=tuple(
            _band(band, document.place(("bands", number))) for number, band in enumerate(file.bands)
        ),
    )


def _mixture(entry: MixtureEntry) -> Mixture:
    return Mixture(
        experts=entry.experts,
        active=entry.active,
        expert_bytes=entry.expert_bytes.si,
        dense_bytes=entry.dense_bytes.si,
        hidden=entry.hidden,
        layers=entry.layers,
        activation_bytes=entry.activation_bytes.si,
        sequences=max(1, round(entry.sequences.si)),
        skew=entry.skew.si,
        draws=entry.draws,
        seed=entry.seed,
    )


def _runtime(name: str, entry: RuntimeEntry) -> Runtime:
    return Runtime(
        name=name,
        tokens_per_s=entry.tokens_per_s.si,
        communication=entry.communication.si,
        foreseen=entry.foreseen,
    )


def _system(name: str, entry: SystemEntry, gpu: GpuKind, links: Mapping[str, Latency]) -> System:
    return System(
        name=name,
        device=gpu.device,
        gpus=entry.gpus,
        fabric=make_fabric(gpu, links, entry.gpus),
        price_per_gpu_hour=entry.price.si,
        groups=(entry.groups[0], entry.groups[1]),
    )


def _band(entry: BandEntry, place: SourceLocation) -> Band:
    return Band(
        system=entry.system,
        strategy=Strategy(entry.strategy),
        runtime=entry.runtime or "",
        figure=entry.figure,
        low=entry.low,
        high=entry.high,
        place=str(place),
    )
