"""Errors of connecting, each with its cause and the command to run next.

OR-SSH-001  unreachable, refused, or silent       OR-SSH-006  no common algorithms
OR-SSH-002  authentication refused                OR-SSH-007  closed during the handshake
OR-SSH-003  host key unknown                      OR-SSH-008  a jump host failed
OR-SSH-004  host key changed                      OR-SSH-009  the node refused a session
OR-SSH-005  name not resolvable                   OR-SSH-010  host key revoked
OR-SSH-011  the login shell does not run the command
OR-SSH-012  the ProxyCommand failed               OR-SSH-013  ssh_config takes too long
OR-SSH-014  ssh refuses its configuration         OR-SSH-015  no time to keep connections for
OR-SSH-016  no socket for a kept connection
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from orchestrator.adapters.transport.transport import NotStarted
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.base.outcome import Outcome, describe_outcome
from orchestrator.core.model.inventory import SshEndpoint

if TYPE_CHECKING:
    from orchestrator.adapters.transport.ssh.known_hosts import HostKey, Trust
    from orchestrator.adapters.transport.ssh.proxy import ProxyEnding, ProxyProcess
    from orchestrator.adapters.transport.ssh.target import Target

# What OpenSSH as a ProxyCommand says when its own server drops the connection.
_DROPPED = r"(kex|ssh)_exchange_identification|Connection (closed|reset) by"


class HandshakeCut(PreflightError):
    """OR-SSH-007, the one failure that waiting cures: the server drops connections under load.
    OR-SSH-012, where a ProxyCommand says the same of a server on the way.
    """


class Refused(PreflightError):
    """Whoever answers does not let us in, or is not whom we know. Trying again can only do harm:
    sites lock accounts.
    """


def unreachable_error(target: Target, why: str) -> PreflightError:
    return PreflightError(
        f"cannot reach {target.address}",
        id="OR-SSH-001",
        where=target.alias,
        why=why,
        remedy=f"check that the node is up and its SSH port open: {_ssh_command(target, '-v')}",
    )


def refused_authentication(target: Target, tried: tuple[str, ...], why: str) -> Refused:
    offered = ", ".join(tried) if tried else "no key at all (none found, none in the agent)"
    return Refused(
        f"{target.address} refused to let us in",
        id="OR-SSH-002",
        where=target.alias,
        why=f"{why}; offered: {offered}{_not_done(target, 'PKCS11Provider')}",
        remedy="install the right key with 'ssh-copy-id', or name it with 'key:' in the inventory; "
        f"then try {_ssh_command(target)}. Not retried: sites lock accounts after "
        "repeated failures",
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
        f"no known_hosts file has {name!r} ({_find_key(target, name)})"
        f"{_not_done(target, 'KnownHostsCommand')}",
        remedy="compare the fingerprint with the node's own (there: ssh-keygen -lf "
        f"/etc/ssh/ssh_host_ed25519_key.pub), then record it: {_ssh_command(target)}",
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
        "the node was reinstalled, or another machine answers (a man in the middle)",
        remedy=f"if the change is expected: ssh-keygen -R {shlex.quote(name)} "
        f"-f {shlex.quote(file)}, then {_ssh_command(target)}",
    )


def _revoked_host_key(target: Target, trust: Trust, why: str) -> Refused:
    lines = ", ".join(f"{key.kind} {key.fingerprint} ({key.place})" for key in trust.revoked)
    return Refused(
        "the host key is not acceptable" if not trust.revoked else "the host key is revoked",
        id="OR-SSH-010",
        where=target.alias,
        why=f"{why}; marked @revoked: {lines or 'none'}",
        remedy="do not connect; ask the administrator of the node for its new host key",
    )


def unresolvable_error(target: Target, why: str) -> PreflightError:
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
        f"no common SSH algorithms with {target.address}",
        id="OR-SSH-006",
        where=target.alias,
        why=why,
        remedy=f"try the other library, 'transport: {other}' for this node; if that fails too: "
        f"{_ssh_command(target, '-vv')}",
    )


def handshake_cut(target: Target, why: str) -> HandshakeCut:
    return HandshakeCut(
        f"{target.address} closed the connection during the handshake",
        id="OR-SSH-007",
        where=target.alias,
        why=f"{why}; most often sshd's MaxStartups, a ban (fail2ban), or a node shutting down",
        remedy=f"wait a minute and run again; if it stays: {_ssh_command(target, '-v')}, "
        "and sshd's log",
    )


def through_proxy(target: Target, proxy: ProxyProcess, error: PreflightError) -> PreflightError:
    """What to blame for ``error``: the ProxyCommand, if it failed by itself. Waits a moment."""
    if isinstance(error, HandshakeCut):
        from orchestrator.adapters.transport.ssh.proxy import ENDING_S, ProxyEnding

        ending = proxy.ending(ENDING_S)
        # One that just ended has carried the connection, and the far end closed it.
        if ending is None or ending == ProxyEnding(0, ""):
            return error
        return _failed_proxy(target, ending)
    if error.id == "OR-SSH-001" and proxy.words:
        error.why += f"; the ProxyCommand wrote: {proxy.words}"
    return error


def _failed_proxy(target: Target, ending: ProxyEnding) -> PreflightError:
    how = f"ended with code {ending.code}" if ending.code >= 0 else "was killed by a signal"
    transient = not ending.words or re.search(_DROPPED, ending.words)
    kind = HandshakeCut if transient else PreflightError
    return kind(
        f"the ProxyCommand {how}",
        id="OR-SSH-012",
        where=target.alias,
        why=ending.words or "it wrote nothing to its standard error",
        remedy=f"correct the ProxyCommand of {target.alias} in ssh_config, or what it needs; then "
        f"try {_ssh_command(target, '-v')}",
    )


def no_proxy(target: Target, why: str) -> PreflightError:
    return PreflightError(
        "the shell for the ProxyCommand cannot be started",
        id="OR-SSH-012",
        where=target.alias,
        why=why,
        remedy="correct the variable SHELL: ssh uses the same",
    )


def no_algorithm(target: Target, keyword: str, wanted: str, *, library: str) -> PreflightError:
    """ssh_config leaves nothing that the library knows."""
    other = "paramiko" if library == "asyncssh" else "asyncssh"
    return no_agreement(
        target, f"{keyword} wants {wanted}, and {library} has none of it", other=other
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


def slow_configuration(endpoint: SshEndpoint, where: str, timeout_s: float) -> PreflightError:
    return PreflightError(
        f"ssh_config is not evaluated within {timeout_s:g} s",
        id="OR-SSH-013",
        where=where,
        why="it waits for the command of a 'Match exec', or for CanonicalizeHostname",
        remedy=f"see what takes so long: {endpoint.command('-v', '-G')}",
    )


def refused_session(node: str, endpoint: SshEndpoint, why: str) -> PreflightError:
    return PreflightError(
        "the node refused to start a command",
        id="OR-SSH-009",
        where=node,
        why=f"{why}; sshd's MaxSessions, a ForceCommand, or an account without a shell",
        remedy=f"try a plain command, {endpoint.command()}; on the node: sshd -T | grep -i session",
    )


def not_started(
    node: str, endpoint: SshEndpoint, outcome: Outcome | None, after_s: float, words: str
) -> NotStarted:
    """``words``: what the login shell wrote in place of running the command."""
    ending = f"did not run the command within {after_s:.3g} s"
    if outcome is not None:
        ending = f"{describe_outcome(outcome)} before the command ran"
    error = NotStarted(
        f"the login shell {ending}; look at its start-up files, or for a forced command",
        id="OR-SSH-011",
        where=node,
        why=f"it wrote: {words}" if words else "it wrote nothing",
        remedy="without a terminal, ~/.bashrc, ~/.profile, ~/.zshenv and the like must not end, "
        "replace or block the shell, nor ForceCommand of sshd or command= in authorized_keys; "
        f"compare: {endpoint.command()}",
    )
    error.outcome = outcome
    return error


def _not_done(target: Target, keyword: str) -> str:
    """What of ssh_config could have helped ssh, and is not done here."""
    value = dict(target.absent).get(keyword)
    return f"; {keyword} {value} is for 'transport: openssh' alone" if value else ""


def _ssh_command(target: Target, *options: str) -> str:
    return target.endpoint.command(*options)


def _find_key(target: Target, name: str) -> str:
    """The command that looks ``name`` up, in the user's own file."""
    file = ("-f", target.known_hosts_files[0]) if target.known_hosts_files else ()
    return shlex.join(["ssh-keygen", "-F", name, *file])
