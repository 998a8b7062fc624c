"""Inventories that were validated before; one with secrets is read anew each time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestrator.adapters.cache.validated_files import ValidatedFiles
from orchestrator.core.base.command import Secret
from orchestrator.core.model.inventory import Cluster


class Inventories:
    """Reads inventory files; what had no fault is kept in one folder, by content."""

    def __init__(self, folder: Path) -> None:
        self._files = ValidatedFiles(folder)

    def load(
        self, data: bytes, source: str, *, folder: str, environ: Mapping[str, str] | None
    ) -> Cluster:
        """As ``parsing.inputs.inventory_file.load_cluster``, which reads it if it is new.

        The values of an inventory with secrets are written nowhere.
        """

        def read() -> Cluster:
            from orchestrator.parsing.inputs.inventory_file import load_cluster

            return load_cluster(data, source, folder=folder, environ=environ)

        home = None if environ is None else environ.get("HOME")
        names = {"source": source, "folder": folder, "home": home}
        return self._files.load(Cluster, data, read, names=names, may_keep=_is_without_secrets)


def _is_without_secrets(cluster: Cluster) -> bool:
    return not any(
        isinstance(value, Secret) for node in cluster.nodes for value in node.env.values()
    )
