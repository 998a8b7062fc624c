"""The nodes that a command is about: the inventory, ``--nodes``, and the ssh_config behind them."""

from __future__ import annotations

import os

from orchestrator.core.model.inventory import Cluster


def load_cluster(cluster: str, nodes: str) -> Cluster:
    """The selected part of an inventory. Raises ``UsageError``, also for an ssh_config of its
    nodes that ``ssh`` would refuse: nothing has been contacted by then.
    """
    from orchestrator.adapters.store.catalog import Catalog
    from orchestrator.adapters.transport.ssh.target import check_configuration
    from orchestrator.parsing.inputs.selection import select

    selected = select(Catalog.from_environment(os.environ).cluster(cluster), nodes)
    check_configuration(selected.nodes)
    return selected
