"""``transport: auto``: which way a node is reached, and why."""

from __future__ import annotations

from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.inventory import NodeSpec, TransportKind

UNSUPPORTED = "OR-SSH-028"


def choose_transport(spec: NodeSpec) -> tuple[TransportKind, str]:
    """The transport, and the reason where it is the user's own ``ssh``. Contacts nobody.

    Raises ``UsageError`` and ``PreflightError`` for a configuration that cannot be followed.
    """
    from orchestrator.adapters.transport.ssh.target import resolve_target

    if spec.transport is not TransportKind.AUTO:
        return spec.transport, ""
    try:
        target = resolve_target(spec.ssh)
    except UsageError as error:
        if error.id != UNSUPPORTED:
            raise
        return TransportKind.OPENSSH, error.what.rpartition(": ")[2]
    if target.absent:
        return TransportKind.OPENSSH, " ".join(target.absent[0])
    return TransportKind.ASYNCSSH, ""
