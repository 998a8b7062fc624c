"""What core/launchers/ray.py tells the programs that run a node's ranks under Ray.

All of them read the same words: the node's own process, and the one that its actor starts.
"""

from __future__ import annotations

import argparse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Driven:
    """A node to place an actor on: what Ray knows it by, a resource of it or one of its addresses,
    and the GPUs that the plan gives to its ranks.
    """

    def __init__(self, word: str) -> None:
        self.name, gpus, *self.known_by = word.split(",")
        self.gpus = {index for index in gpus.split("+") if index}


class Options:
    """The words before ``--``, and the ``program`` of a rank after it.

    ``drive``: each node to place an actor on. ``ranks``: the variables of each rank.
    ``master``: where the ranks of the world meet, None if they do not; ``master_port`` 0 = not
    chosen yet. ``meeting`` tells this run's processes from those of another. ``like``: the pid of
    the node's own process.
    """

    def __init__(self, words: Sequence[str]) -> None:
        at = list(words).index("--")
        given = _parser().parse_args(words[:at])
        self.program = list(words[at + 1 :])
        self.scratch: str | None = given.scratch
        self.cluster: str = given.cluster
        self.resource: str = given.resource
        self.head: bool = given.head
        self.join: str | None = given.join
        self.meeting: str = given.meeting
        self.drive = [Driven(word) for word in given.drive]
        self.ranks = [dict(p.split("=", 1) for p in word.split(",")) for word in given.rank]
        self.master: str | None = given.master
        self.master_port: int = given.master_port
        self.independent: bool = given.independent
        self.like: int = given.like


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("--cluster", "--resource", "--meeting"):
        parser.add_argument(name, default="")
    for name in ("--scratch", "--join", "--master"):
        parser.add_argument(name)
    for name in ("--drive", "--rank"):
        parser.add_argument(name, action="append", default=[])
    for name in ("--head", "--independent"):
        parser.add_argument(name, action="store_true")
    for name in ("--master-port", "--like"):
        parser.add_argument(name, type=int, default=0)
    return parser
