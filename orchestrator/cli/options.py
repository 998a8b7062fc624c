"""Options that several commands share, and what they mean."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli.capture_option import capture_option
from orchestrator.core.base.command import Secret, Text
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.nodeset import MAX_NAME_LENGTH

if TYPE_CHECKING:
    from orchestrator.core.launchers import LauncherOption
    from orchestrator.core.model.request import Budgets

CONTINUE = "continue"  # as a value of --unattended
OFF = "off"  # as a value of these budgets
DEFAULT_PRICES = "default"
OPTIONAL = frozenset({"hang", "link"})
MIN_BUDGET_S, MAX_BUDGET_S = 1.0, 31 * 86_400.0

Command = TypeVar("Command", bound=Callable[..., Any])


class FiniteRange(click.FloatRange):
    """A number within limits. ``nan`` compares as within all of them, and ``inf`` has no end."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


def cluster_options(command: Command) -> Command:
    """``--cluster`` and ``--nodes``."""
    return _cluster_options(command, required=True)


def any_cluster_options(command: Command) -> Command:
    """The same where a cluster may be left out."""
    return _cluster_options(command, required=False)


def _cluster_options(command: Command, *, required: bool) -> Command:
    return _with_options(
        command,
        click.option(
            "-C",
            "--cluster",
            required=required,
            envvar="ORCHESTRATE_CLUSTER",
            metavar="NAME|FILE",
            help="Inventory of the machines (orchestrate cluster list).",
        ),
        click.option(
            "--nodes",
            metavar="EXPR",
            callback=_not_blank,
            help="Only these nodes: gpu[01-04],!gpu03",
        ),
    )


def _not_blank(_context: click.Context, _option: click.Parameter, nodes: str | None) -> str:
    """Refuse ``--nodes "$UNSET"``: it must not mean every node."""
    if nodes is not None and not nodes.strip():
        raise UsageError(
            "--nodes is empty", id="usage.nodes", remedy="leave it out to use every node"
        )
    return nodes or ""


def job_options(command: Command) -> Command:
    """What to run and how: everything that the plan depends on."""
    return _what_options(_how_options(_time_options(command)))


def _what_options(command: Command) -> Command:
    return _with_options(
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

    return _with_options(
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
    return _with_options(
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
    return _with_options(
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


def view_options(command: Command) -> Command:
    """How progress is shown."""
    return _with_options(
        command,
        click.option(
            "-f/-F",
            "--follow/--no-follow",
            default=None,
            help="Show the ranks' output as it comes; the default for a script of your own.",
        ),
        click.option("-q", "--quiet", is_flag=True, help="Only problems and the result."),
        click.option("-v", "--verbose", is_flag=True, help="Every event."),
        color_option,
        json_option,
    )


def color_option(command: Command) -> Command:
    return _with_options(
        command,
        click.option(
            "--color",
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            show_default=True,
            help="auto honours NO_COLOR and TERM=dumb.",
        ),
    )


def json_option(command: Command) -> Command:
    return _with_options(
        command, click.option("--json", "as_json", is_flag=True, help="JSON lines on stdout.")
    )


def _with_options(command: Command, *decorators: Callable[[Command], Command]) -> Command:
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


Options = TypeVar("Options", bound="JobOptions | ViewOptions")


def pick_options(kind: type[Options], given: Mapping[str, Any]) -> Options:
    """The options of ``kind`` among all that a command was given."""
    return kind(**{f.name: given[f.name] for f in fields(kind) if f.name in given})


def pick_job(given: Mapping[str, Any]) -> JobOptions:
    """The same for a job, with the options that launchers have: as typed, or as remembered, under
    ``launcher_options`` or (by earlier versions) beside the others.
    """
    from orchestrator.core.launchers import launcher_options

    values = {**given, **given.get("launcher_options", {})}
    found = {option.name: values.get(option.name) for _, option in launcher_options()}
    several = {n: (v,) if isinstance(v, str) else tuple(v) for n, v in found.items() if v}
    return replace(pick_options(JobOptions, given), launcher_options=several)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewOptions:
    """The values of ``view_options``."""

    follow: bool | None
    quiet: bool
    verbose: bool
    color: str
    as_json: bool

    @property
    def verbosity(self) -> int:
        return -1 if self.quiet else int(self.verbose)


def parse_launcher(
    launcher: str, given: Mapping[str, Sequence[str]], environment: Mapping[str, str]
) -> tuple[str, tuple[str, ...]]:
    """Which launcher is asked for, and what is passed on to it, from the values of the options that
    launchers have. Raises ``UsageError``.
    """
    from orchestrator.core.launchers import known_launcher, launcher_options

    for owner, option in launcher_options():
        values = given.get(option.name, ())
        if values and launcher == "auto" and option.implies:
            launcher = owner.name
        if values and launcher != owner.name:
            what = f"{option.flag} is for --launcher {owner.name}, not {launcher}"
            remedy = f"--launcher {owner.name}, or leave {option.flag} out"
            raise UsageError(what, id=option.id, remedy=remedy)
        for misuse in filter(None, map(option.find_misuse, values)):
            raise UsageError(misuse.what, id=option.id, why=misuse.why, remedy=misuse.remedy)
    known = known_launcher(launcher)
    passed = (o.pass_on(given.get(o.name, ()), environment) for o in known.options) if known else ()
    return launcher, tuple(word for words in passed for word in words)


def parse_env(settings: tuple[str, ...], environment: Mapping[str, str]) -> dict[str, Text]:
    """``K=V`` as given; ``K`` alone with its value here, as a secret. Raises ``UsageError``."""
    variables: dict[str, Text] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not name.isidentifier() or not name.isascii() or len(name) > MAX_NAME_LENGTH:
            what = f"not a variable name: {name[:80]!r}"
            raise UsageError(what, id="run.env", remedy="--env NAME=VALUE")
        if equals:
            variables[name] = value
        elif name in environment:
            variables[name] = Secret(environment[name])
        else:
            remedy = f"--env {name}=VALUE, or export {name} first"
            raise UsageError(f"{name} is not set here", id="run.env", remedy=remedy)
    return variables


def parse_budgets(
    settings: tuple[str, ...], run_s: float | None, unattended: str | None = None
) -> Budgets:
    """``NAME=SECONDS`` over the defaults; ``run_s`` wins over ``run=``, and ``unattended`` (seconds
    or ``continue``) over ``lease=``. Raises ``UsageError``.
    """
    from orchestrator.core.base.suggest import did_you_mean
    from orchestrator.core.model.request import Budgets

    known = [f.name.removesuffix("_s") for f in fields(Budgets) if f.name.endswith("_s")]
    given: dict[str, float | None] = {}
    asked = any(setting.startswith("hang=") for setting in settings)
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in known:
            what = f"no budget is called {name!r}"
            raise UsageError(what, id="run.budget", remedy=did_you_mean(name, known))
        off = name in OPTIONAL and value == OFF
        given[f"{name}_s"] = None if off else _parse_seconds(f"--budget {name}", value)
    if run_s is not None:
        given["run_s"] = run_s
    if unattended is not None:
        lasting = unattended == CONTINUE
        given["lease_s"] = (
            None if lasting else _parse_seconds("--unattended", unattended, f", or {CONTINUE}")
        )
    # Only run, lease, hang and link may be None, and only they are.
    return Budgets(**given, hang_asked=asked)  # type: ignore[arg-type]


def _parse_seconds(option: str, value: str, otherwise: str = "") -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not MIN_BUDGET_S <= seconds <= MAX_BUDGET_S:
        what = f"{option}: expected a number of seconds, 1 to {MAX_BUDGET_S:.0f}{otherwise}"
        raise UsageError(what, id="run.budget", why=f"found {value!r}")
    return seconds


def use_color(choice: str, *, err: bool = False) -> bool:
    """Whether standard output (or error) is written in colour."""
    from orchestrator.view.terminal.terminal import use_color

    return use_color(choice, sys.stderr if err else sys.stdout, os.environ)
