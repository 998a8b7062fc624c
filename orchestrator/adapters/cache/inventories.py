"""Inventories that were validated before: building the schema takes longer than most commands."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.adapters.cache.json_cache import JsonCache, code_stamp
from orchestrator.core.base.codec import CodecError, from_json, to_json
from orchestrator.core.base.command import Secret
from orchestrator.core.model.inventory import Cluster

# What decides how a text is read; a change of any makes every entry another one's.
_READERS = ("parsing/inputs", "core/base", "core/model")


class Inventories:
    """Reads inventory files; what had no fault is kept in one folder, by content."""

    def __init__(self, folder: Path) -> None:
        self._cache = JsonCache(folder)

    def load(
        self, data: bytes, source: str, *, folder: str, environ: Mapping[str, str] | None
    ) -> Cluster:
        """As ``parsing.inputs.inventory_file.load_cluster``, which reads it if it is new.

        An inventory with secrets is read anew each time, and its values are written nowhere.
        """
        key = _key(data, source, folder, environ)
        try:
            kept: Cluster = from_json(Cluster, self._cache.find(key))
        except CodecError:
            pass
        else:
            return kept
        from orchestrator.parsing.inputs.inventory_file import load_cluster

        cluster = load_cluster(data, source, folder=folder, environ=environ)
        if not _holds_secrets(cluster):
            self._cache.keep(key, to_json(cluster))
        return cluster


def _holds_secrets(cluster: Cluster) -> bool:
    return any(isinstance(value, Secret) for node in cluster.nodes for value in node.env.values())


def _key(
    data: bytes, source: str, folder: str, environ: Mapping[str, str] | None
) -> dict[str, Any]:
    return {
        "text": hashlib.sha256(data).hexdigest(),
        "source": source,
        "folder": folder,
        "home": None if environ is None else environ.get("HOME"),
        "readers": code_stamp(_READERS),
    }
