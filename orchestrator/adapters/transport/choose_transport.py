"""``transport: auto``: which way a node is reached, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.inventory import NodeSpec, TransportKind

if TYPE_CHECKING:
    from orchestrator.adapters.transport.ssh.target import Target

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
    reason = next(filter(None, map(_reason_for_ssh, target.stations())), "")
    return (TransportKind.OPENSSH, reason) if reason else (TransportKind.ASYNCSSH, "")


def _reason_for_ssh(target: Target) -> str:
    """What asyncssh does not do for this server; empty: it does everything."""
    from orchestrator.adapters.transport.ssh.known_hosts import is_binary_list

    if target.absent:
        return " ".join(target.absent[0])
    if target.revoked_keys_file and is_binary_list(target.revoked_keys_file):
        return f"RevokedHostKeys {target.revoked_keys_file}"
    if target.algorithms:
        from orchestrator.adapters.transport.asyncssh.async_ssh_algorithms import lacked_algorithm

        return lacked_algorithm(target)
    return ""
