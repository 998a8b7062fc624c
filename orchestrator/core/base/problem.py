"""Errors as data: what events, plans and verdicts carry."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.base.wire_names import wire


@wire("Problem")
@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An error as data: ``id`` is stable (``OR-SSH-003``), ``remedy`` says what to do next."""

    id: str
    message: str
    remedy: str = ""
