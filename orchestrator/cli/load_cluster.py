"""The nodes that a command is about: the inventory, ``--nodes``, and the ssh_config behind them."""

from __future__ import annotations

import os

from orchestrator.core.model.inventory import SSH_LIBRARIES, Cluster


def load_cluster(cluster: str, nodes: str) -> Cluster:
    """The selected part of an inventory. Raises ``UsageError``, also for an ssh_config of its
    nodes that ``ssh`` would refuse: nothing has been contacted by then.
    """
    from orchestrator.adapters.catalog.catalog import Catalog

    selected = Catalog.from_environment(os.environ).cluster(cluster)
    # What a command does not need is not imported: it would begin later.
    if nodes.strip():
        from orchestrator.parsing.inputs.selection import select_nodes

        selected = select_nodes(selected, nodes)
    if any(node.transport in SSH_LIBRARIES for node in selected.nodes):
        from orchestrator.adapters.transport.ssh.target import check_configuration

        check_configuration(selected.nodes)
    return selected
