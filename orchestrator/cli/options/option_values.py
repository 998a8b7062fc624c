"""What the values of a job's options mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from orchestrator.core.base.command import Secret, Text
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.nodeset import MAX_NAME_LENGTH

if TYPE_CHECKING:
    from orchestrator.core.model.plan import Budgets

CONTINUE = "continue"  # as a value of --unattended
OFF = "off"  # as a value of these budgets
OPTIONAL = frozenset({"hang", "link"})
MIN_BUDGET_S, MAX_BUDGET_S = 1.0, 31 * 86_400.0


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
    from orchestrator.core.model.plan import Budgets

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
