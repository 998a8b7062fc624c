"""Inventories that were imported, as tests look at them."""

from __future__ import annotations

from pathlib import Path

from orchestrator.adapters.catalog.foreign_files import read_foreign
from orchestrator.core.model.inventory import Cluster
from orchestrator.parsing.importers.foreign_nodes import Imported, render_inventory
from orchestrator.parsing.inputs.inventory_file import load_cluster


def loaded(imported: Imported) -> Cluster:
    """The inventory after a round trip through its text."""
    return load_cluster(render_inventory(imported, "new", "a test"), "imported.yaml")


def gpus(imported: Imported) -> dict[str, int | None]:
    """Node -> declared GPUs, in the order of the nodes."""
    return {node.name: node.gpus.count for node in loaded(imported).nodes}


def routes(cluster: Cluster) -> dict[str, str]:
    """Node -> ``user@host:port via jump key=...``, without what ssh_config decides."""
    found = {}
    for node in cluster.nodes:
        ssh = node.ssh
        user = f"{ssh.user}@" if ssh.user else ""
        port = f":{ssh.port}" if ssh.port else ""
        jump = f" via {ssh.jump}" if ssh.jump else ""
        key = f" key={ssh.identity_file}" if ssh.identity_file else ""
        found[node.name] = f"{user}{ssh.host}{port}{jump}{key}"
    return found


def imported_from(folder: Path, format: str, files: dict[str, str]) -> Cluster:
    """Write ``files`` and import the first of them."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    inventory = read_foreign(format, str(folder / next(iter(files))), "new")
    return load_cluster(inventory.text, "imported.yaml")
