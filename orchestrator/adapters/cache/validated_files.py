"""Files that were validated before: loading what validates takes longer than most commands."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.adapters.cache.json_cache import JsonCache, code_stamp
from orchestrator.core.base.codec import CodecError, from_json, to_json

T = TypeVar("T")
# What decides how a text is read; a change of any makes every entry another one's.
_READERS = ("parsing/inputs", "parsing/inputs/workloads", "core/base", "core/model")


class ValidatedFiles:
    """What was read of files that had no fault is kept in one folder, by their content."""

    def __init__(self, folder: Path) -> None:
        self._cache = JsonCache(folder)

    def load(
        self,
        kind: type[T],
        data: bytes,
        read: Callable[[], T],
        *,
        names: Mapping[str, str | None],
        may_keep: Callable[[T], bool] = lambda _: True,
    ) -> T:
        """What ``read`` makes of ``data``, a ``kind``; ``names`` is all else that it depends on.

        Raises what ``read`` raises.
        """
        key = _key(kind, data, names)
        try:
            kept: T = from_json(kind, self._cache.find(key))
        except CodecError:
            made = read()
            if not may_keep(made):
                return made
            written = to_json(made)
            self._cache.keep(key, written)
            # Not ``made``, which may hold 1 where later readings have 1.0.
            kept = from_json(kind, written)
        return kept


def _key(kind: type[Any], data: bytes, names: Mapping[str, str | None]) -> dict[str, Any]:
    return {
        "kind": kind.__name__,
        "text": hashlib.sha256(data).hexdigest(),
        **names,
        "readers": code_stamp(_READERS),
    }
