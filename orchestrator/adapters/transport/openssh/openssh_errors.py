"""What ``ssh`` says when it does not connect, as the errors that all transports have."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.adapters.transport.openssh.ssh_settings import SshSettings
from orchestrator.adapters.transport.ssh.failures import HandshakeCut, Refused
from orchestrator.core.base.errors import PreflightError, UsageError
from orchestrator.core.model.inventory import SshEndpoint

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.adapters.transport.transport import ConnectLimits

MAX_SHOWN = 400
# ssh names no address where it speaks through a jump host or a ProxyCommand.
_ON_THE_WAY = "UNKNOWN port 65535"
_OWN_END = "kex_exchange_identification: "
# Patterns; compiled only when something fails.
_SHOWN_KEY = r"fingerprint for the (\S+) key sent by the remote host is\s+(SHA256:\S+?)\.?\s"
_KNOWN_KEY = r"Offending \S+ key in (\S+)"
_DROPPED = "(kex|ssh)_exchange_identification|Connection (closed|reset) by|banner exchange"


class _Failure(NamedTuple):
    """One kind of failure; ``found`` is a pattern in what ``ssh`` says of it. ``what`` and
    ``remedy`` may hold ``{host}``, ``{address}``, ``{ssh}`` and ``{verbose}``.
    """

    id: str
    what: str
    remedy: str
    found: str = ""
    kind: type[PreflightError] = PreflightError


_UNREACHABLE = _Failure(
    id="OR-SSH-001",
    found="timed out|stdio forwarding failed|Connection refused|No route to host|"
    "Network is unreachable|Host is down",
    what="cannot reach {address}",
    remedy="check that the node is up and its SSH port open: {verbose}",
)
# The first that is found decides.
_FAILURES = (
    _Failure(
        id="OR-SSH-004",
        found=r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        what="the host key changed",
        remedy="if the change is expected (the node was reinstalled), remove the old key with "
        "ssh-keygen -R as ssh says; then {ssh}",
        kind=Refused,
    ),
    _Failure(
        id="OR-SSH-010",
        found=r"(?i)host key .*revoked",
        what="the host key is revoked",
        remedy="do not connect; ask the administrator of the node for its new host key",
        kind=Refused,
    ),
    _Failure(
        id="OR-SSH-003",
        found=r"No \S+ host key is known|Host key verification failed",
        what="the host key is unknown",
        remedy="compare the fingerprint with the node's own (there: ssh-keygen -lf "
        "/etc/ssh/ssh_host_ed25519_key.pub), then record it: {ssh}",
        kind=Refused,
    ),
    _Failure(
        id="OR-SSH-002",
        found=r"Permission denied|Too many authentication failures|Authentication failed",
        what="{address} refused to let us in",
        remedy="try {ssh}; if it asks for something (a passphrase, a code, a touch), log in once "
        "with orchestrate connections open, and the connection stays. Not retried: sites lock "
        "accounts after repeated failures",
        kind=Refused,
    ),
    _Failure(
        id="OR-SSH-005",
        found=r"Could not resolve hostname",
        what="the name {host!r} does not resolve",
        remedy="correct 'ssh:' in the inventory, or give it a HostName in ssh_config",
    ),
    _Failure(
        id="OR-SSH-006",
        found=r"Unable to negotiate|no matching .* found",
        what="no common SSH algorithms with {address}",
        remedy="allow one of those in ssh_config for this host; see {verbose}",
    ),
    _UNREACHABLE,
    _Failure(
        id="OR-SSH-007",
        found=_DROPPED,
        what="{address} closed the connection during the handshake",
        remedy="wait a minute and run again (sshd's MaxStartups, a ban, a node shutting down); if "
        "it stays: {verbose}, and sshd's log",
        kind=HandshakeCut,
    ),
)


def is_on_the_way(words: str) -> bool:
    """Whether a jump host or a ProxyCommand ended the connection."""
    return _ON_THE_WAY in words


def explain_failure(
    endpoint: SshEndpoint, settings: SshSettings, words: str, limits: ConnectLimits
) -> PreflightError:
    """The error for an ``ssh`` that ended without a connection, after it said ``words``."""
    said = words.strip() or f"no answer within {limits.connect_timeout_s:g} s"
    failure = _find_failure(said)
    if is_on_the_way(words) and failure is not _UNREACHABLE:
        said = _words_of_the_proxy(said)
        failure = _failure_on_the_way(settings, said)
    return _error(failure or _UNREACHABLE, said, endpoint, settings)


def _words_of_the_proxy(said: str) -> str:
    """Without what ``ssh`` says of its own end, as far as anything else is left."""
    lines = [line for line in said.splitlines() if _ON_THE_WAY not in line]
    own = [line for line in lines if not line.startswith(_OWN_END)]
    return "\n".join(own).strip() or "\n".join(lines).strip()


def _find_failure(words: str) -> _Failure | None:
    return next((failure for failure in _FAILURES if re.search(failure.found, words)), None)


def _failure_on_the_way(settings: SshSettings, said: str) -> _Failure:
    """What a jump host or a ProxyCommand said comes before what ``ssh`` says of its end."""
    cause = _find_failure(said)
    dropped = not said or (cause is not None and cause.kind is HandshakeCut)
    if jump := settings.first("proxyjump"):
        why = f" ({cause.id})" if cause else ""
        return _Failure(
            id="OR-SSH-008",
            what=f"the jump host {jump} failed{why}",
            remedy=cause.remedy if cause else "try it: {verbose}",
            kind=HandshakeCut if dropped else cause.kind if cause else PreflightError,
        )
    return _Failure(
        id="OR-SSH-012",
        what="the ProxyCommand failed",
        remedy="correct the ProxyCommand in ssh_config, or what it needs; then try {verbose}",
        kind=HandshakeCut if dropped else PreflightError,
    )


def _error(
    failure: _Failure, words: str, endpoint: SshEndpoint, settings: SshSettings
) -> PreflightError:
    host = settings.first("hostname") or endpoint.host
    named = {
        "host": host,
        "address": f"{settings.first('user')}@{host}:{settings.first('port')}",
        "ssh": endpoint.command(),
        "verbose": endpoint.command("-v"),
    }
    return failure.kind(
        failure.what.format(**named),
        id=failure.id,
        where=endpoint.host,
        why=_summarize_keys(words) or f"ssh says: {_shown(words)}",
        remedy=failure.remedy.format(**named),
    )


def _summarize_keys(words: str) -> str:
    """What a screenful about a changed host key comes to."""
    shown, known = re.search(_SHOWN_KEY, words), re.search(_KNOWN_KEY, words)
    if not (shown and known):
        return ""
    return (
        f"it shows {shown[1]} {shown[2]}, known is another ({known[1]}): the node was reinstalled, "
        "or another machine answers (a man in the middle)"
    )


def refused_configuration(endpoint: SshEndpoint, words: str) -> UsageError:
    return UsageError(
        "ssh refuses its configuration",
        id="OR-SSH-014",
        where=endpoint.ssh_config or "ssh_config",
        why=f"ssh says: {_shown(words)}",
        remedy=f"correct it; then: {shlex.join(['ssh', '-G', *endpoint.argv])}",
    )


def too_many_hops(endpoint: SshEndpoint, jump: str, most: int) -> PreflightError:
    return PreflightError(
        f"jump hosts form a circle or a chain of more than {most}",
        id="OR-SSH-008",
        where=endpoint.host,
        why=f"'ProxyJump {jump}' applies to {endpoint.host} itself",
        remedy="exclude the jump host from the block that names it: 'Host * !JUMP'",
    )


def too_many_at_once(endpoint: SshEndpoint, most: int) -> PreflightError:
    return PreflightError(
        f"{most} commands use this node at once",
        id="OR-SSH-009",
        where=endpoint.host,
        why="each holds a connection of its own",
        remedy="wait for some of them to end: orchestrate ps",
    )


def no_socket(endpoint: SshEndpoint, folder: Path, error: OSError) -> PreflightError:
    return PreflightError(
        f"no connection can be held in {folder}",
        id="OR-SSH-016",
        where=endpoint.host,
        why=error.strerror or str(error),
        remedy=f"make room there (df -h {shlex.quote(str(folder))}), or let ORCHESTRATE_HOME name "
        "another folder",
    )


def _shown(words: str) -> str:
    text = "".join(c if c.isprintable() else " " for c in words)
    return " ".join(text.split())[-MAX_SHOWN:] or "nothing"
