"""``orchestrate nightly``: schedules that start a run a night, and notice when none was."""

from __future__ import annotations

import os
import time
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options.shared import FiniteRange, json_option

if TYPE_CHECKING:
    from orchestrator.adapters.nightly.schedule_store import NightlyFolder
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.cli.nights.run_night import NightShift
    from orchestrator.cli.nights.status_file import StatusFile
    from orchestrator.core.nightly.nights import Night
    from orchestrator.core.nightly.schedule import Schedule

name_argument = click.argument("name", metavar="NAME")
SHOWN_NIGHTS, MOST_NIGHTS = 10, 1000


@click.group()
def nightly() -> None:
    """Run a workload every night, and notice when a night is missing.

    \b
    orchestrate nightly add jw3 --cluster lab --workload mlperf --at 19:00 --tz Asia/Seoul
    orchestrate nightly install jw3
    """


@nightly.command()
@name_argument
@click.option("-C", "--cluster", required=True, metavar="NAME|FILE", help="Where to run.")
@click.option("-W", "--workload", default="", metavar="NAME|DIR", help="What to run.")
@click.option("--suite", default="", metavar="NAME|FILE", help="Instead: the suite to run.")
@click.option(
    "--at", required=True, metavar="HH:MM", help="Or cron fields: '0 19 * * 1-5'. One run a night."
)
@click.option("--tz", "zone", required=True, metavar="ZONE", help="Such as Asia/Seoul.")
@click.option("--set", "settings", multiple=True, metavar="K=V", help="As for run. Repeatable.")
@click.option("--nodes", default="", metavar="EXPR", help="Only these nodes.")
@click.option(
    "--overlap",
    type=click.Choice(["skip", "queue"]),
    default="skip",
    show_default=True,
    help="A night that is due while the one before is still running.",
)
@click.option(
    "--catch-up",
    type=FiniteRange(0, 7 * 24),
    default=12.0,
    show_default=True,
    metavar="HOURS",
    help="How late a missed night may still begin; the latest one only.",
)
@click.option(
    "--jitter",
    type=FiniteRange(0, 1800),
    default=0.0,
    metavar="SECONDS",
    help="Begin up to so much later, each night differently.",
)
@click.option(
    "--limit",
    type=FiniteRange(1 / 60, 31 * 24),
    default=12.0,
    show_default=True,
    metavar="HOURS",
    help="A run that takes longer is stopped.",
)
@click.option("--env", multiple=True, metavar="K=V", help="A variable of every night. No secrets.")
@click.option(
    "--env-file", metavar="FILE", help="K=V lines, read when a night begins: for secrets."
)
@click.option(
    "--status",
    "status_file",
    metavar="FILE",
    help="Keep the status page there while a night runs: .md, .html, .json or .txt.",
)
@click.option(
    "--status-every",
    type=FiniteRange(1, 3600),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How often it is written.",
)
def add(name: str, **given: Any) -> None:
    """Add a schedule, or change the one of this name. Nothing runs before it is installed."""
    from orchestrator.adapters.nightly.schedule_store import nightly_folder, save_schedule
    from orchestrator.cli.nights.night_rows import next_line
    from orchestrator.cli.nights.schedule_options import read_schedule

    layout = _layout()
    schedule = read_schedule(layout, name, given)
    check = _check_suite if schedule.suite else _check_request
    check(schedule)
    folder = nightly_folder(layout, name)
    before = _find(layout, name)[1] if folder.schedule.exists() else None
    save_schedule(folder, schedule)
    if before is not None:
        click.echo(f"{name}: was there before: {_changes(before, schedule)}", err=True)
    click.echo(f"{name}: {next_line(schedule)}")
    click.echo(f"orchestrate nightly install {name}", err=True)


@nightly.command()
@name_argument
@click.option("--systemd", "backend", flag_value="systemd", help="A systemd user timer.")
@click.option("--cron", "backend", flag_value="cron", help="The user's crontab.")
def install(name: str, backend: str | None) -> None:
    """Let the host wake the schedule NAME: systemd where a user manager answers, else cron."""
    from orchestrator.adapters.nightly import crontab, systemd_units
    from orchestrator.adapters.nightly.wake_program import write_wake_program
    from orchestrator.cli.nights.night_rows import next_line

    layout = _layout()
    folder, schedule = _find(layout, name)
    chosen = backend or ("systemd" if systemd_units.has_user_manager() else "cron")
    write_wake_program(folder, layout, os.environ, schedule.environment)
    if chosen == "systemd":
        systemd_units.install_units(folder, schedule.minute, os.environ)
    else:
        crontab.install_cron(folder, schedule.minute)
    click.echo(f"{name}: installed with {chosen}; {next_line(schedule)}")


@nightly.command()
@name_argument
def remove(name: str) -> None:
    """Remove the schedule NAME and exactly its own entries; the log of its nights stays."""
    from orchestrator.adapters.nightly import crontab, systemd_units
    from orchestrator.adapters.nightly.schedule_store import nightly_folder
    from orchestrator.core.base.errors import UsageError

    folder = nightly_folder(_layout(), name)
    if not folder.schedule.exists():
        _find(_layout(), name)
    try:
        crontab.remove_cron(folder)
    except UsageError as error:
        if "no program crontab" not in error.why:
            raise
    systemd_units.remove_units(folder, os.environ)
    folder.wake.unlink(missing_ok=True)
    folder.schedule.unlink(missing_ok=True)
    click.echo(f"{name}: removed; the log of its nights is in {folder.path}")


@nightly.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the schedules and how their last nights stand."""
    from orchestrator.adapters.nightly.schedule_store import read_nights, schedule_names
    from orchestrator.cli.output import print_json, print_table

    layout = _layout()
    rows = []
    for name in schedule_names(layout):
        folder, schedule = _find(layout, name)
        nights = read_nights(folder, schedule, now=time.time())
        last = nights[-1] if nights else None
        if as_json:
            print_json("schedule", _summary(folder, schedule, last))
            continue
        state = f"{last.night} {last.state.value}" if last else ""
        rows.append((name, schedule.what, schedule.at, schedule.zone, _backend(folder), state))
    if not as_json:
        print_table(("schedule", "what", "at", "zone", "installed", "last night"), rows)


@nightly.command()
@name_argument
@click.option(
    "--next",
    "count",
    metavar="N",
    type=click.IntRange(1, MOST_NIGHTS),
    default=SHOWN_NIGHTS,
    show_default=True,
    help="How many; 365 show both clock changes of a year.",
)
@json_option
def show(name: str, count: int, as_json: bool) -> None:
    """Show the schedule NAME, and when its next nights are due, in its zone and here."""
    from orchestrator.adapters.nightly.due_times import next_nights
    from orchestrator.cli.nights.night_rows import due_cells, since_cell
    from orchestrator.cli.output import print_json, print_table
    from orchestrator.parsing.inputs.nights.schedule_file import schedule_fields

    folder, schedule = _find(_layout(), name)
    due = next_nights(schedule, time.time(), count)
    if as_json:
        nights = [{"night": each.night, "due": each.due} for each in due]
        print_json("schedule", {**_summary(folder, schedule, None), "next": nights})
        return
    for key, value in {**schedule_fields(schedule), "since": since_cell(schedule)}.items():
        if value not in ("", [], {}):
            click.echo(f"{key}: {value}")
    click.echo(f"installed: {_backend(folder) or 'no: orchestrate nightly install ' + name}")
    rows = [due_cells(each, schedule.zone) for each in due]
    print_table(("night", f"due ({schedule.zone})", "due here"), rows)


@nightly.command()
@name_argument
def run(name: str) -> int:
    """Run tonight's run of NAME now, in the foreground."""
    from orchestrator.adapters.nightly.schedule_store import working_on
    from orchestrator.core.base.errors import BusyError

    shift = _shift(name)
    with working_on(shift.folder) as alone:
        if not alone:
            what = f"a night of {name} is running"
            remedy = f"orchestrate nightly log {name}"
            raise BusyError(what, id="nightly.busy", where=shift.folder.path, remedy=remedy)
        night = shift.today()
        _say(f"{name}: the run of {night} begins; it prints to {shift.folder.output(night)}")
        try:
            code = shift.run_night(night, reason="started by hand")
        finally:
            shift.page.write()
        _say(f"{name}: over with exit code {code}; orchestrate nightly log {name}")
        return code


@nightly.command()
@name_argument
def tick(name: str) -> int:
    """Begin the night of NAME that is due, if one is; cron and systemd call this."""
    shift = _shift(name)
    try:
        return shift.tick()
    finally:
        shift.page.write()


@nightly.command()
@name_argument
def watch(name: str) -> int:
    """Look for nights of NAME that are missing, late or half-done; cron and systemd call this."""
    from orchestrator.adapters.nightly.night_notices import night_notice
    from orchestrator.adapters.notify.outbox import try_notice
    from orchestrator.cli.nights.run_night import watch_nights
    from orchestrator.core.nightly.nights import alarm_text

    layout = _layout()
    folder, schedule = _find(layout, name)

    def alarm(night: Night) -> None:
        click.echo(f"{name}: night {night.night} is {alarm_text(night)}", err=True)
        try_notice(layout, night_notice(name, night), _say)

    found = watch_nights(folder, schedule, alarm)
    _status_file(layout, schedule).write()
    return 1 if found else 0


@nightly.command()
@name_argument
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True)
@json_option
def log(name: str, limit: int, as_json: bool) -> None:
    """Show what became of the nights of NAME."""
    from dataclasses import asdict

    from orchestrator.adapters.nightly.schedule_store import read_nights
    from orchestrator.cli.nights.night_rows import NIGHT_HEADINGS, night_cells
    from orchestrator.cli.output import print_json, print_table

    folder, schedule = _find(_layout(), name)
    nights = read_nights(folder, schedule, now=time.time())[-limit:]
    if as_json:
        for night in nights:
            print_json("night", {**asdict(night), "alarms": night.alarms})
        return
    print_table(NIGHT_HEADINGS, [night_cells(night, schedule.zone) for night in nights])


def _layout() -> Layout:
    from orchestrator.adapters.store.layout import Layout

    return Layout.from_environment(os.environ)


def _changes(before: Schedule, after: Schedule) -> str:
    """Each setting that differs, with both values."""
    names = [f.name for f in fields(before) if f.name != "since"]
    pairs = ((name, getattr(before, name), getattr(after, name)) for name in names)
    told = [f"{name} was {old!r} and is {new!r}" for name, old, new in pairs if old != new]
    return "; ".join(told) or "nothing differs"


def _find(layout: Layout, name: str) -> tuple[NightlyFolder, Schedule]:
    from orchestrator.adapters.nightly.schedule_store import find_schedule

    return find_schedule(layout, name)


def _shift(name: str) -> NightShift:
    from orchestrator.cli.nights.judge_night import judge_night
    from orchestrator.cli.nights.run_night import NightShift

    layout = _layout()
    folder, schedule = _find(layout, name)
    return NightShift(
        layout=layout,
        folder=folder,
        schedule=schedule,
        say=_say,
        after_run=lambda night, last: judge_night(layout, folder, night, _say, last=last),
        page=_status_file(layout, schedule),
    )


def _status_file(layout: Layout, schedule: Schedule) -> StatusFile:
    from orchestrator.cli.nights.status_file import StatusFile

    return StatusFile(layout, schedule.status_file, schedule.status_every_s, _say)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _check_request(schedule: Schedule) -> None:
    """Refuse tonight what would fail every night. Raises ``UsageError``; contacts nothing."""
    from orchestrator.adapters.loadgen.installed import refuse_missing
    from orchestrator.cli.commands.jobs.run import run as run_command
    from orchestrator.cli.load_request import load_request
    from orchestrator.cli.nights.run_night import run_arguments
    from orchestrator.cli.options.job_options import JobOptions
    from orchestrator.cli.options.shared import pick_options

    words = run_arguments(schedule, "nightly")[1:]
    given = run_command.make_context("run", words).params
    request = load_request(pick_options(JobOptions, given), (), run_id="")
    if request.load is not None:
        refuse_missing()


def _check_suite(schedule: Schedule) -> None:
    """The same for a suite. Raises ``UsageError``."""
    from orchestrator.adapters.catalog.catalog import Catalog
    from orchestrator.cli.load_cluster import load_cluster

    catalog = Catalog.from_environment(os.environ)
    catalog.read_suite(catalog.find_suite(schedule.suite))
    load_cluster(schedule.cluster, schedule.nodes)


def _backend(folder: NightlyFolder) -> str:
    from orchestrator.adapters.nightly import crontab, systemd_units
    from orchestrator.core.base.errors import UsageError

    if systemd_units.has_units(folder, os.environ):
        return "systemd"
    try:
        text = crontab.read_crontab() or ""
        return "cron" if crontab.has_schedule(text, folder) else ""
    except UsageError:
        return ""


def _summary(folder: NightlyFolder, schedule: Schedule, last: Night | None) -> dict[str, Any]:
    from dataclasses import asdict

    from orchestrator.parsing.inputs.nights.schedule_file import schedule_fields

    return {
        **schedule_fields(schedule),
        "installed": _backend(folder) or None,
        "last_night": asdict(last) if last else None,
    }
