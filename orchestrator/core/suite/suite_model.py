"""A suite: runs of workloads that are evidence together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.model.workload import ParameterValue

DEFAULT_LIMIT_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNeeds:
    """What a step cannot run without. ``gpus`` and ``nodes``: over the cluster, at least so many;
    ``gpu_memory_gib``: of each of these GPUs; ``memory_gib``: of each node; ``tools``: programs on
    every node's PATH; ``packages``: modules that the ranks' interpreter can import.
    """

    nodes: int = 0
    gpus: int = 0
    gpu_memory_gib: float = 0.0
    memory_gib: float = 0.0
    tools: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One run of a workload. ``after``: steps that are over before it begins, however they ended.
    ``limit_s``: a run that takes longer is stopped. ``place``: where the suite's file declares it.
    """

    name: str
    workload: str
    preset: str | None = None
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    captures: tuple[str, ...] = ()
    optional: bool = False
    after: tuple[str, ...] = ()
    needs: StepNeeds = StepNeeds()
    limit_s: float = DEFAULT_LIMIT_S
    why: str = ""
    place: str = ""

    @property
    def settings(self) -> tuple[str, ...]:
        """What ``--set`` says for this step."""
        preset = [f"preset={self.preset}"] if self.preset else []
        return (*preset, *(f"{key}={_text(value)}" for key, value in self.parameters.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Steps by name, in the order of the file; ``source``: that file."""

    name: str
    source: str
    summary: str = ""
    steps: tuple[Step, ...]

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)


def ordered_steps(steps: Sequence[Step]) -> tuple[Step, ...]:
    """In the order of the file, but each after those that it names. A name that is not among
    ``steps`` orders nothing. Raises :class:`CycleError`.
    """
    left, done = {step.name: step for step in steps}, list[Step]()
    while left:
        free = [step for step in left.values() if not left.keys() & set(step.after)]
        if not free:
            raise CycleError(_cycle(left))
        done.append(free[0])
        del left[free[0].name]
    return tuple(done)


class CycleError(ValueError):
    """Steps that wait for each other, in a circle whose first is its last."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(" -> ".join(names))
        self.names = tuple(names)


def _cycle(waiting: Mapping[str, Step]) -> list[str]:
    """A walk from step to step that it waits for, from where it meets itself."""
    walk = [next(iter(waiting))]
    while walk[-1] not in walk[:-1]:
        walk.append(next(name for name in waiting[walk[-1]].after if name in waiting))
    return walk[walk.index(walk[-1]) :]


def select_steps(suite: Suite, only: Iterable[str], skip: Iterable[str]) -> dict[str, str]:
    """The steps that ``--only`` and ``--skip`` leave out, each with the reason. Raises
    :class:`UsageError` for a step that the suite does not have, and where none is left.
    """
    only, skip = tuple(only), tuple(skip)
    for option, names in (("--only", only), ("--skip", skip)):
        for name in names:
            _require_step(suite, option, name)
    left_out = {
        step.name: f"--skip {step.name}" if step.name in skip else "not in --only"
        for step in suite.steps
        if step.name in skip or (only and step.name not in only)
    }
    if len(left_out) == len(suite.steps):
        what = f"{suite.name}: --only and --skip leave no step to run"
        raise UsageError(what, id="suite.empty", where=suite.source, remedy="leave one of them out")
    return left_out


def _require_step(suite: Suite, option: str, name: str) -> None:
    names = [step.name for step in suite.steps]
    if name not in names:
        what = f"{option}: {suite.name} has no step {name!r}"
        raise UsageError(
            what, id="suite.step", where=suite.source, remedy=did_you_mean(name, names)
        )


def _text(value: ParameterValue) -> str:
    """A value as ``--set`` reads it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
