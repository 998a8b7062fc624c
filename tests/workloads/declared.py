"""Settings of a bundled workload as its workload.yaml declares them, with some changed."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, TypeVar

import orchestrate_kit as kit

Settings = TypeVar("Settings")


def declared(settings: type[Settings], **changes: Any) -> Settings:
    """The defaults, but for ``changes``."""
    return replace(_defaults(settings), **changes)  # type: ignore[type-var]


@functools.cache
def _defaults(settings: type[Any]) -> Any:
    return kit.parse(settings, [])
