"""The values of the options of ``migrate``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteChoice:
    """Which run of a suite becomes a bundle: a new one on ``cluster``, the latest there with
    ``resume``, or the one that ``suite_run`` names.
    """

    cluster: str | None
    nodes: str
    only: tuple[str, ...]
    skip: tuple[str, ...]
    resume: bool
    suite_run: str | None
    color: str
    as_json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """``against`` None: the bundle that was captured here. ``bundle`` None: run the suite."""

    name: str
    against: str | None
    bundle: str | None
    try_way_back: bool
    choice: SuiteChoice
