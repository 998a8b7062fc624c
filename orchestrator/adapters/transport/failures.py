"""Errors of connecting, each with its cause and the command to run next.

OR-SSH-001  unreachable, refused, or silent       OR-SSH-006  no common algorithms
OR-SSH-002  authentication refused                OR-SSH-007  closed during the handshake
OR-SSH-003  host key unknown                      OR-SSH-008  a jump host failed
OR-SSH-004  host key changed                      OR-SSH-009  the node refused a session
OR-SSH-005  name not resolvable                   OR-SSH-010  host key revoked
"""

from __future__ import annotations

import shlex

from orchestrator.adapters.transport.known_hosts import HostKey, Trust
from orchestrator.adapters.transport.target import Target
from orchestrator.core.base.errors import PreflightError


class HandshakeCut(PreflightError):
    """OR-SSH-007, the one failure that waiting cures: the server drops connections under load."""


class Refused(PreflightError):
    """Whoever answers does not let us in, or is not whom we know. Trying again can only do harm:
    sites lock accounts.
    """


def unreachable(target: Target, why: str) -> PreflightError:
    return PreflightError(
        f"cannot reach {target.address}",
        id="OR-SSH-001",
        where=target.alias,
        why=why,
        remedy=f"check that the node is up and its SSH port open: {_ssh(target, '-v')}",
    )


def refused_authentication(target: Target, tried: tuple[str, ...], why: str) -> Refused:
    offered = ", ".join(tried) if tried else "no key at all (none found, none in the agent)"
    return Refused(
        f"{target.address} refused to let us in",
        id="OR-SSH-002",
        where=target.alias,
        why=f"{why}; offered: {offered}",
        remedy=f"install the right key with 'ssh-copy-id', or name it with 'identity_file:'; "
        f"then try {_ssh(target)}. Not retried: sites lock accounts after repeated failures",
    )


def refused_host_key(target: Target, trust: Trust, shown: HostKey | None, why: str) -> Refused:
    """The server showed a key that is not trusted. ``shown`` is None if ``why`` says it all."""
    if shown is None or any(key.blob == shown.blob for key in trust.revoked):
        return _revoked_host_key(target, trust, why)
    if trust.keys or trust.authorities:
        return _changed_host_key(target, trust, shown)
    name = target.known_hosts_names[0]
    return Refused(
        "the host key is unknown",
        id="OR-SSH-003",
        where=target.alias,
        why=f"{target.address} shows {shown.kind} {shown.fingerprint}; "
        f"no known_hosts file has {name!r} ({_find_key(target, name)})",
        remedy="compare the fingerprint with the node's own (there: ssh-keygen -lf "
        f"/etc/ssh/ssh_host_ed25519_key.pub), then record it: {_ssh(target)}",
    )


def _changed_host_key(target: Target, trust: Trust, shown: HostKey) -> Refused:
    known = (*trust.keys, *trust.authorities)
    expected = "; ".join(f"{key.kind} {key.fingerprint} ({key.place})" for key in known)
    name, file = target.known_hosts_names[0], known[0].place.file
    return Refused(
        "the host key changed",
        id="OR-SSH-004",
        where=target.alias,
        why=f"{target.address} shows {shown.kind} {shown.fingerprint}, known is {expected}: "
        "the node was reinstalled, or somebody answers in its place",
        remedy=f"if the change is expected: ssh-keygen -R {shlex.quote(name)} "
        f"-f {shlex.quote(file)}, then {_ssh(target)}",
    )


def _revoked_host_key(target: Target, trust: Trust, why: str) -> Refused:
    lines = ", ".join(f"{key.kind} {key.fingerprint} ({key.place})" for key in trust.revoked)
    return Refused(
        "the host key is not acceptable" if not trust.revoked else "the host key is revoked",
        id="OR-SSH-010",
        where=target.alias,
        why=f"{why}; marked @revoked: {lines or 'none'}",
        remedy="do not connect; ask whoever runs the node for its new host key",
    )


def unresolvable(target: Target, why: str) -> PreflightError:
    return PreflightError(
        f"the name {target.host!r} does not resolve",
        id="OR-SSH-005",
        where=target.alias,
        why=why,
        remedy=f"correct 'host:', or give {target.alias!r} a HostName in ssh_config: "
        f"{shlex.join(['ssh', '-G', *target.endpoint.argv])} | grep -i hostname",
    )


def no_agreement(target: Target, why: str, *, other: str) -> PreflightError:
    return PreflightError(
        f"no agreement on how to speak with {target.address}",
        id="OR-SSH-006",
        where=target.alias,
        why=why,
        remedy=f"try the other library, 'transport: {other}' for this node; if that fails too: "
        f"{_ssh(target, '-vv')}",
    )


def handshake_cut(target: Target, why: str) -> HandshakeCut:
    return HandshakeCut(
        f"{target.address} closed the connection during the handshake",
        id="OR-SSH-007",
        where=target.alias,
        why=f"{why}; most often sshd's MaxStartups, a ban (fail2ban), or a node shutting down",
        remedy=f"wait a minute and run again; if it stays: {_ssh(target, '-v')}, and sshd's log",
    )


def failed_jump(target: Target, hop: Target, cause: PreflightError) -> PreflightError:
    kind = type(cause) if isinstance(cause, (HandshakeCut, Refused)) else PreflightError
    return kind(
        f"the jump host {hop.alias} failed",
        id="OR-SSH-008",
        where=target.alias,
        why=f"{cause.id}: {cause.what}; {cause.why}",
        remedy=cause.remedy,
    )


def refused_session(node: str, target: Target, why: str) -> PreflightError:
    return PreflightError(
        "the node refused to start a command",
        id="OR-SSH-009",
        where=node,
        why=f"{why}; sshd's MaxSessions, a ForceCommand, or an account without a shell",
        remedy=f"try a plain command, {_ssh(target)}; on the node: sshd -T | grep -i session",
    )


def _ssh(target: Target, *options: str) -> str:
    return target.endpoint.command(*options)


def _find_key(target: Target, name: str) -> str:
    """The command that looks ``name`` up, in the user's own file."""
    file = ("-f", target.known_hosts_files[0]) if target.known_hosts_files else ()
    return shlex.join(["ssh-keygen", "-F", name, *file])
