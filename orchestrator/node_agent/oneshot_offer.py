"""A snapshot is offered together with the start of the agent: a node that has it says so, and that
was all. In every other case the agent starts as ever.
"""

from __future__ import annotations

import fcntl
import os

from orchestrator.node_agent.code.complete_snapshots import count_complete, is_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def answer_offer(root: str, offer: Mapping[str, Any]) -> None:
    """Ends the process with an answer if the snapshot is known to be here, at ``root``.

    ``offer["copied"]``: it only runs in copies, which are compared when they are made. What may
    have run in its place is looked at by the agent, and so is one that somebody works on.
    """
    digest = offer.get("digest")
    if offer.get("copied") is not True or not is_digest(digest):
        return
    try:
        lock = os.open(f"{root}/locks/snapshot-{digest}", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if count_complete(root + "/snapshots", str(digest)) is None:
            os.close(lock)
            return
    except OSError:
        return
    os.write(1, b'{"digest":"%s","have":true}\n' % str(digest).encode())
    os._exit(0)  # there is nothing to be tidied up
