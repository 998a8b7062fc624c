"""A checklist on disk and on the screen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from orchestrator.adapters.migration.checklist_report import (
    FLAG_HEADINGS,
    FLAG_KEYS,
    HEADINGS,
    checklist_html,
    checklist_markdown,
    checklist_object,
    object_rows,
    object_verdict,
)
from orchestrator.adapters.migration.migration_folder import MigrationFolder
from orchestrator.adapters.store.atomic_files import write_atomic, write_json
from orchestrator.cli.output import print_json, print_table
from orchestrator.core.base.errors import UsageError
from orchestrator.core.migration.checklist import Checklist


def save_checklist(folder: MigrationFolder, checklist: Checklist) -> None:
    """As JSON, Markdown and HTML. Raises ``OSError``."""
    write_json(folder.checklist, checklist_object(checklist))
    write_atomic(folder.markdown, checklist_markdown(checklist).encode("utf-8", "replace"))
    write_atomic(folder.html, checklist_html(checklist).encode("utf-8", "replace"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A result object, and what a terminal shows of it."""

    found: Mapping[str, Any]
    code: int
    rows: Sequence[Sequence[str]]
    flags: Sequence[Sequence[str]]
    verdict: str


def show_checklist(checklist: Checklist, folder: MigrationFolder, *, as_json: bool) -> int:
    """Print it, the verdict last; the exit code."""
    return _print(_shown(checklist_object(checklist)), folder, as_json=as_json)


def report_migration(folder: MigrationFolder, *, as_json: bool) -> int:
    """What ``verify`` found last; its exit code. Raises :class:`UsageError` if it never did."""
    try:
        shown = _shown(json.loads(folder.checklist.read_bytes()))
    except FileNotFoundError as error:
        raise _unusable(f"{folder.name} was not verified yet", folder) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"the checklist of {folder.name} cannot be read: {type(error).__name__}: {error}"
        raise _unusable(what, folder) from error
    return _print(shown, folder, as_json=as_json)


def _shown(found: Mapping[str, Any]) -> _Shown:
    """Raises ``ValueError``, ``KeyError``, ``TypeError`` where it lacks something."""
    return _Shown(
        found=found,
        code=int(found["exit_code"]),
        rows=list(object_rows(found)),
        flags=[tuple(flag[key] for key in FLAG_KEYS) for flag in found["flags"]],
        verdict=object_verdict(found),
    )


def _print(shown: _Shown, folder: MigrationFolder, *, as_json: bool) -> int:
    if as_json:
        print_json("result", shown.found)
        return shown.code
    print_table(HEADINGS, shown.rows)
    if shown.flags:
        click.echo("\nExpectations that physics contradicts")
        print_table(FLAG_HEADINGS, shown.flags)
    places = f"report: {folder.html}\nway back: {folder.way_back}"
    click.echo(f"\n{places}\n{shown.verdict}")
    return shown.code


def _unusable(what: str, folder: MigrationFolder) -> UsageError:
    remedy = f"orchestrate migrate verify {folder.name} --cluster NEW"
    return UsageError(what, id="migrate.report", where=folder.path, remedy=remedy)
