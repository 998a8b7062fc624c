"""What a workload declares: its entry, shape, parameters, metrics with their gates,
requirements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.core.base.wire_names import wire
from orchestrator.core.model.container import ContainerSpec
from orchestrator.core.model.load import LoadSource

ParameterValue = bool | int | float | str


class Shape(StrEnum):
    """What may be done with the work when collectives between nodes fail. Independent ranks never
    communicate.
    """

    RIGID = "rigid"
    INDEPENDENT = "independent"
    DIVISIBLE = "divisible"
    LOCAL_ROUNDS = "local-rounds"


class Per(StrEnum):
    """What one rank is started for."""

    GPU = "gpu"
    NODE = "node"


class ParameterType(StrEnum):
    """Types of workload parameters."""

    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    STR = "str"
    CHOICE = "choice"


class Direction(StrEnum):
    """Which way a metric is better. INFO is neither."""

    LOWER = "lower"
    HIGHER = "higher"
    INFO = "info"


@wire("Parameter")
@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A typed parameter; becomes ``--name value`` on the entry's argument vector.

    ``min`` and ``max`` are inclusive, ``above`` and ``below`` are not.
    A str matches all of ``pattern``, which ``form`` says in words.
    ``place`` is where it is declared, ``file:line:column``.
    """

    name: str
    type: ParameterType
    default: ParameterValue
    unit: str = ""
    help: str = ""
    choices: tuple[str, ...] = ()
    min: float | None = None
    max: float | None = None
    above: float | None = None
    below: float | None = None
    multiple_of: int | None = None
    pattern: str | None = None
    form: str = ""
    place: str = ""


@wire("Condition")
@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What the value of a parameter is to be: one of ``any_of`` unless that is empty, and all else.
    Bounds are numbers, or names of other parameters.
    """

    parameter: str
    any_of: tuple[ParameterValue, ...] = ()
    none_of: tuple[ParameterValue, ...] = ()
    min: float | str | None = None
    max: float | str | None = None

    @property
    def bounding(self) -> tuple[str, ...]:
        """The other parameters that it names."""
        return tuple(bound for bound in (self.min, self.max) if isinstance(bound, str))


@wire("ParameterRule")
@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterRule:
    """Where all of ``when`` holds, which may be nothing, all of ``require`` has to.

    ``place`` is where it is declared, ``file:line:column``.
    """

    when: tuple[Condition, ...] = ()
    require: tuple[Condition, ...]
    why: str
    place: str = ""


@wire("Gate")
@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Bounds, both inclusive, that a metric must meet."""

    min: float | None = None
    max: float | None = None


@wire("Metric")
@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A figure that the workload reports. A required one that is missing fails the run. One that is
    not for the ``terminal`` is in results and reports only.
    """

    name: str
    unit: str
    direction: Direction = Direction.INFO
    required: bool = False
    gate: Gate | None = None
    terminal: bool = True
    help: str = ""


@wire("Ranks")
@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """How many ranks: one per GPU or per node; ``cpu`` on a node without GPUs."""

    per: Per = Per.GPU
    cpu: int = 1


@wire("SampleSource")
@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSource:
    """Which parameters of a divisible workload say what its samples are.

    ``file``: a JSONL file on the coordinator, one sample a line; empty text = generated from their
    numbers. ``count``: how many, 0 = all lines. ``group``: how many are worked on together.
    ``any_of``: keys of which each sample of a file has at least one; none = any JSON value will do.
    """

    file: str
    count: str
    group: str
    any_of: tuple[str, ...] = ()


@wire("TextSource")
@dataclass(frozen=True, slots=True, kw_only=True)
class TextSource:
    """What is assumed of texts that are packed into rows, where ``only`` holds: mean ``tokens``,
    and the share of them that are ``targets``.
    """

    tokens: int
    targets: float
    only: tuple[Condition, ...] = ()


@wire("TrainingSource")
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSource:
    """Which parameters of a workload say what a step of its training is, for predictions.

    ``model``: its name or folder; ``rows`` of a micro-batch, ``sequence`` tokens each;
    ``accumulation`` of them in a step, unless ``global_rows`` of all ranks is more than 0.
    ``texts``: what rows are made of; None = each is one text, all of it targets. ``only``: what has
    to hold for the program to be the one that was measured.
    """

    model: str
    rows: str
    sequence: str
    accumulation: str
    global_rows: str
    adapter_rank: str
    steps: str
    texts: TextSource | None = None
    only: tuple[Condition, ...] = ()


@wire("InferenceFigures")
@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceFigures:
    """The metrics under which a workload reports output tokens/s of all engines, the median time to
    the first token, that of each token after it, watts of a GPU, bytes of an engine's cache, input
    tokens/s until the first token, and GiB of its peak; None = it reports no such thing.
    """

    throughput: str
    first_token: str | None = None
    token: str | None = None
    watts: str = "watts"
    cache: str | None = None
    prefill: str | None = None
    memory: str | None = None


@wire("InferenceSource")
@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceSource:
    """Which parameters of a workload say what inference it is, for predictions. ``program``:
    ``engine``, the built-in one, or ``eager``, transformers' own forward pass, of which
    ``tensor_parallel`` ranks share a model, 0 = all.

    ``shape``: the sizes of the model where ``model`` is empty. A number stands for itself.
    ``prompt_words`` are made tokens by ``tokens_per_word``, which is assumed. ``in_flight``:
    requests at once of each engine, or ``shared`` by all; where a ``rate`` of all engines is named
    it counts for ``duration`` seconds instead, unless ``closed`` holds. ``batches``: a list of such
    numbers, one after the other on one engine, whose figures end in ``.batchN``. Where neither is
    there, an engine answers as many as its memory holds. ``served``: asked by others, by text.
    ``engines`` of a node: 0, or None = one for each GPU. ``context``: tokens for which memory is
    kept, 0 = as the engine chooses; None = it takes the memory that it finds. ``only``: as for
    training.
    """

    program: str = "engine"
    tensor_parallel: str | None = None
    model: str
    shape: str | None = None
    prompt_words: str | int
    tokens_per_word: float
    answer: str | int
    in_flight: str | None = None
    batches: str | None = None
    shared: bool = False
    rate: str | None = None
    duration: str | None = None
    closed: tuple[Condition, ...] = ()
    engines: str | None = None
    context: str | None = None
    served: bool = False
    figures: InferenceFigures
    only: tuple[Condition, ...] = ()


@wire("Workload")
@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A validated ``workload.yaml``, or a user's own script wrapped as one.

    ``folder`` is the coordinator directory whose content travels; ``entry`` is relative to it.
    ``python``: what the interpreter is given before the entry, or in its place, such as ``-m
    package.module``; modules of the project are imported from ``import_root``, relative to it. With
    ``program`` there is no Python script but a plain command's argument vector. ``own_code``: a
    user's project rather than a workload; it runs in a writable copy of what travelled. ``rules``
    say which parameters do not go together, ``samples`` what divisible work is divided into,
    ``load`` who asks for it, ``training`` and ``inference`` what is predicted of it. ``combine``: a
    script in the folder that makes one result of several nodes' outputs, on the coordinator; empty
    = there is none. ``notice`` stands on everything that a run puts out. ``begins_anew``: another
    attempt continues nothing. ``failures``: what to do about each that a rank may name in its last
    line, by id. ``warnings``: what was found in a user's script that is told in plan and result.
    ``container``: what ranks run in, unless node or user say otherwise.
    """

    name: str
    source: str
    folder: str
    summary: str = ""
    entry: str = ""
    combine: str = ""
    program: tuple[str, ...] = ()
    python: tuple[str, ...] = ()
    import_root: str = ""
    own_code: bool = False
    shape: Shape = Shape.RIGID
    ranks: Ranks = Ranks()
    modules: tuple[str, ...] = ()
    requirements: str | None = None
    min_nodes: int = 1
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    rules: tuple[ParameterRule, ...] = ()
    presets: Mapping[str, Mapping[str, ParameterValue]] = field(default_factory=dict)
    default_preset: str | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()
    samples: SampleSource | None = None
    load: LoadSource | None = None
    training: TrainingSource | None = None
    inference: InferenceSource | None = None
    notice: str = ""
    begins_anew: bool = False
    failures: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    container: ContainerSpec | None = None

    @property
    def is_predicted(self) -> bool:
        """Whether it says what its runs are predicted from."""
        return self.training is not None or self.inference is not None


@wire("Job")
@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A workload with every parameter decided: what one run executes."""

    workload: Workload
    preset: str | None = None
    values: Mapping[str, ParameterValue] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()

    def argv(self) -> tuple[str, ...]:
        """The entry's arguments: parameters in declared order, then free arguments."""
        words: list[str] = []
        for name, value in self.values.items():
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                words.append(f"--{flag}={value}")
        return (*words, *self.arguments)
