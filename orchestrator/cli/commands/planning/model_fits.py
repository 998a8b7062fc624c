"""``orchestrate model calibrate``, ``accuracy`` and ``advise``."""

from __future__ import annotations

import click


@click.command()
def calibrate() -> None:
    """Fit."""


@click.command()
def accuracy() -> None:
    """Show."""


@click.command()
def advise() -> None:
    """Advise."""
