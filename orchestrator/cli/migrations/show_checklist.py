"""A checklist on disk and on the screen."""

from __future__ import annotations

import json

import click

from orchestrator.adapters.migration.checklist_report import (
    FLAG_HEADINGS,
    HEADINGS,
    checklist_html,
    checklist_markdown,
    checklist_object,
    checklist_rows,
    exit_code,
    flag_rows,
    verdict_text,
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


def show_checklist(checklist: Checklist, folder: MigrationFolder, *, as_json: bool) -> int:
    """Print it, the verdict last; the exit code."""
    code = int(exit_code(checklist))
    if as_json:
        print_json("result", checklist_object(checklist))
        return code
    print_table(HEADINGS, list(checklist_rows(checklist)))
    flags = list(flag_rows(checklist))
    if flags:
        click.echo("\nExpectations that physics contradicts")
        print_table(FLAG_HEADINGS, flags)
    click.echo(f"\nreport: {folder.html}\nway back: {folder.way_back}\n{verdict_text(checklist)}")
    return code


def report_migration(folder: MigrationFolder, *, as_json: bool) -> int:
    """What ``verify`` found last; its exit code. Raises :class:`UsageError` if it never did."""
    try:
        found = json.loads(folder.checklist.read_bytes())
        markdown = folder.markdown.read_text(encoding="utf-8")
        code = int(found["exit_code"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = f"orchestrate migrate verify {folder.name} --cluster NEW"
        what = f"{folder.name} was not verified yet"
        raise UsageError(what, id="migrate.report", where=folder.path, remedy=remedy) from error
    if as_json:
        print_json("result", found)
    else:
        click.echo(markdown)
        click.echo(f"report: {folder.html}")
    return code
