"""The words of a ``run`` that a command of ours starts."""

from __future__ import annotations

from collections.abc import Iterable

UNWATCHED = ("--no-follow", "--color", "never")


def node_words(nodes: str) -> list[str]:
    """The nodes that are selected; none where that is all of them."""
    return ["--nodes", nodes] if nodes else []


def job_words(workload: str, nodes: str, settings: Iterable[str]) -> list[str]:
    """What runs on which nodes of the cluster, with each setting as ``--set`` reads it."""
    given = [word for setting in settings for word in ("--set", setting)]
    return ["--workload", workload, *node_words(nodes), *given]
