"""Options of the commands that start or plan a job: what it runs, how, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options.capture_option import capture_option
from orchestrator.cli.options.shared import (
    Command,
    FiniteRange,
    cluster_options,
    pick_options,
    with_options,
)

if TYPE_CHECKING:
    from orchestrator.core.launchers import LauncherOption

DEFAULT_PRICES = "default"


def job_options(command: Command) -> Command:
    """What to run and how: everything that the plan depends on."""
    return _what_options(_how_options(_time_options(command)))


def _what_options(command: Command) -> Command:
    return with_options(
        cluster_options(command),
        click.option(
            "-W",
            "--workload",
            metavar="NAME|DIR",
            help="What to run (orchestrate workload list); else a script after the options.",
        ),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="K=V",
            help="A parameter of the workload, or preset=NAME. Repeatable.",
        ),
        click.option(
            "--env",
            multiple=True,
            metavar="K=V|K",
            help="A variable for every rank; without =V, taken from here and kept secret.",
        ),
        click.option(
            "--workdir", metavar="DIR", help="The folder that travels with a script of your own."
        ),
    )


def _how_options(command: Command) -> Command:
    return _launcher_options(_limit_options(capture_option(command)))


def _launcher_options(command: Command) -> Command:
    from orchestrator.core.launchers import LAUNCHERS, launcher_options
    from orchestrator.core.model.container import Engine

    return with_options(
        command,
        click.option(
            "--launcher",
            type=click.Choice(["auto", *LAUNCHERS]),
            default="auto",
            show_default=True,
            help="What starts the ranks.",
        ),
        *(_launcher_option(option) for _, option in launcher_options()),
        click.option(
            "--container",
            default="",
            metavar="IMAGE",
            help="Ranks run in a container of this image; none: in no container.",
        ),
        click.option(
            "--container-engine",
            type=click.Choice([engine.value for engine in Engine]),
            help="What runs containers (default: as declared, else podman).",
        ),
        click.option(
            "--ranks-per-node",
            type=click.IntRange(1, 4096),
            metavar="N",
            help="Instead of one per GPU, or what the workload declares.",
        ),
    )


def _launcher_option(option: LauncherOption) -> Callable[[Command], Command]:
    return click.option(
        option.flag,
        option.name,
        multiple=option.repeatable,
        metavar=option.metavar,
        help=option.help,
    )


def _limit_options(command: Command) -> Command:
    return with_options(
        command,
        click.option(
            "--fabric-probe/--no-fabric-probe",
            default=True,
            show_default=True,
            help="Try a collective over all ranks before they are launched on several machines.",
        ),
        click.option(
            "--no-cache",
            is_flag=True,
            help="Probe the fabric also when the same nodes proved good within the last day.",
        ),
        click.option(
            "--prices",
            default=DEFAULT_PRICES,
            metavar="NAME|FILE",
            show_default=True,
            help="Price list of electricity and APIs, by which the cost is worked out.",
        ),
        click.option(
            "--exclusive",
            is_flag=True,
            help="Keep other runs off the machines altogether, not only off these GPUs.",
        ),
    )


def _time_options(command: Command) -> Command:
    return with_options(
        command,
        click.option(
            "--timeout",
            type=FiniteRange(min=0, min_open=True),
            metavar="SECONDS",
            help="How long the ranks may run.",
        ),
        click.option(
            "--unattended",
            metavar="SECONDS|continue",
            help="How long the ranks go on without a coordinator, which may have crashed or lost "
            "its network; continue: until they are done.  [default: 60; with --detach: continue]",
        ),
        click.option(
            "--budget",
            "budgets",
            multiple=True,
            metavar="NAME=SECONDS",
            help="Another deadline, such as connect=60; hang=SECONDS|off: silence; "
            "link=SECONDS|off: broken links. Repeatable.",
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """The values of ``job_options``. Those with a default were unknown to earlier versions, whose
    runs are resumed as they began. ``launcher_options``: what was given of the options that
    launchers have, by their names.
    """

    cluster: str
    nodes: str
    workload: str | None
    settings: tuple[str, ...]
    env: tuple[str, ...]
    launcher: str
    ranks_per_node: int | None
    workdir: str | None
    exclusive: bool
    timeout: float | None
    unattended: str | None
    budgets: tuple[str, ...]
    fabric_probe: bool = False
    no_cache: bool = False
    prices: str = DEFAULT_PRICES
    captures: tuple[str, ...] = ()
    container: str = ""
    container_engine: str | None = None
    launcher_options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def pick_job(given: Mapping[str, Any]) -> JobOptions:
    """The same for a job, with the options that launchers have: as typed, or as remembered, under
    ``launcher_options`` or (by earlier versions) beside the others.
    """
    from orchestrator.core.launchers import launcher_options

    values = {**given, **given.get("launcher_options", {})}
    found = {option.name: values.get(option.name) for _, option in launcher_options()}
    several = {n: (v,) if isinstance(v, str) else tuple(v) for n, v in found.items() if v}
    return replace(pick_options(JobOptions, given), launcher_options=several)
