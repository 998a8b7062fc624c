"""Where a connection goes and what it may use: the inventory and ssh_config combined."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.adapters.transport import known_hosts
from orchestrator.adapters.transport.ssh_config import Directive, Settings, evaluate, read_config
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.model.inventory import SshEndpoint

MAX_HOPS = 8
DEFAULT_IDENTITIES = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk")
_ALGORITHMS = ("kexalgorithms", "ciphers", "macs", "hostkeyalgorithms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One SSH server and how to reach it. All paths are expanded; ``agent`` is a socket or empty.
    ``endpoint`` is what it was made of.

    ``algorithms`` holds what ssh_config says under the lower-case keywords ``kexalgorithms``,
    ``ciphers``, ``macs`` and ``hostkeyalgorithms``.
    """

    endpoint: SshEndpoint
    host: str
    port: int
    user: str
    identity_files: tuple[str, ...]
    certificate_files: tuple[str, ...]
    identities_only: bool
    agent: str
    known_hosts_files: tuple[str, ...]
    host_key_alias: str
    algorithms: tuple[tuple[str, str], ...]
    proxy_command: tuple[str, ...]
    via: Target | None

    @property
    def alias(self) -> str:
        """The name that ssh_config knows it by."""
        return self.endpoint.host

    @property
    def address(self) -> str:
        """``user@host:port`` for messages."""
        return f"{self.user}@{self.host}:{self.port}"

    @property
    def known_hosts_names(self) -> tuple[str, ...]:
        """The names under which the host's key may be filed, in OpenSSH's order."""
        if self.host_key_alias:
            return (self.host_key_alias,)
        return tuple(dict.fromkeys((known_hosts.lookup_name(self.host, self.port), self.host)))

    def trust(self) -> known_hosts.Trust:
        """What the user's known_hosts files say about this host, read now."""
        return known_hosts.trust_in(self.known_hosts_files, self.known_hosts_names)


def resolve(endpoint: SshEndpoint) -> Target:
    """Combine ``endpoint`` with ssh_config; the endpoint wins. Reads files, contacts nobody.

    Raises ``UsageError`` for a configuration that cannot be read and
    :class:`PreflightError` for jump hosts that form a circle.
    """
    return _resolve(endpoint, read_config(endpoint.ssh_config), depth=0)


def _resolve(endpoint: SshEndpoint, files: Sequence[Sequence[Directive]], depth: int) -> Target:
    preset = {"user": endpoint.user, "port": str(endpoint.port) if endpoint.port else None}
    if endpoint.jump:
        preset["proxyjump"] = endpoint.jump
    settings = evaluate(endpoint.host, files, preset={k: v for k, v in preset.items() if v})
    target = _target(endpoint, settings)
    jump = settings.get("proxyjump", "none")
    if jump.lower() == "none":
        return target
    if depth >= MAX_HOPS:
        raise PreflightError(
            f"jump hosts form a circle or a chain of more than {MAX_HOPS}",
            id="OR-SSH-008",
            where=endpoint.host,
            why=f"'ProxyJump {jump}' applies to {endpoint.host} itself",
            remedy="exclude the jump host from the block that names it: 'Host * !JUMP'",
        )
    return replace(target, via=_chain(jump, endpoint, files, depth))


def _chain(
    jump: str, endpoint: SshEndpoint, files: Sequence[Sequence[Directive]], depth: int
) -> Target | None:
    """The hops of ``a,b``: b is reached through a; only a's own ProxyJump is looked up."""
    via: Target | None = None
    hops = jump.split(",")
    for number, hop in enumerate(hops):
        own_jump = "none" if number else None
        target = _resolve(replace(_parse_hop(hop, endpoint), jump=own_jump), files, depth + 1)
        if number:
            told = replace(target.endpoint, jump=",".join(hops[:number]))
            target = replace(target, via=via, endpoint=told)
        via = target
    return via


def _parse_hop(hop: str, endpoint: SshEndpoint) -> SshEndpoint:
    """``[ssh://][user@]host[:port]``, also with an IPv6 address in brackets."""
    user, _, rest = hop.strip().removeprefix("ssh://").rstrip("/").rpartition("@")
    if rest.startswith("["):
        host, _, port = rest[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = rest.partition(":")
    number = int(port) if port.isdecimal() else None
    return replace(endpoint, host=host, user=user or None, port=number)


def _target(endpoint: SshEndpoint, settings: Settings) -> Target:
    return Target(
        endpoint=endpoint,
        host=settings.host,
        port=settings.port,
        user=settings.user,
        identity_files=_identity_files(endpoint, settings),
        certificate_files=tuple(settings.expand(f) for f in settings.certificate_files),
        identities_only=endpoint.identity_file is not None or settings.is_set("identitiesonly"),
        agent=_agent(settings),
        known_hosts_files=_known_hosts_files(endpoint, settings),
        host_key_alias=settings.get("hostkeyalias"),
        algorithms=tuple((k, settings.get(k)) for k in _ALGORITHMS if settings.get(k)),
        proxy_command=_proxy_command(settings),
        via=None,
    )


def _identity_files(endpoint: SshEndpoint, settings: Settings) -> tuple[str, ...]:
    """The inventory's file first, then ssh_config's; OpenSSH's defaults if neither names any."""
    explicit = [endpoint.identity_file] if endpoint.identity_file is not None else []
    named = [*explicit, *(f for f in settings.identity_files if f.lower() != "none")]
    if not named and not settings.identity_files:
        named = [f"~/.ssh/{name}" for name in DEFAULT_IDENTITIES]
    return tuple(settings.expand(name) for name in named)


def _agent(settings: Settings) -> str:
    chosen = settings.get("identityagent", "SSH_AUTH_SOCK")
    if chosen == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK", "")
    return "" if chosen.lower() == "none" else settings.expand(chosen)


def _known_hosts_files(endpoint: SshEndpoint, settings: Settings) -> tuple[str, ...]:
    if endpoint.known_hosts is not None:
        return (str(Path(endpoint.known_hosts).expanduser()),)
    user = settings.values.get("userknownhostsfile", ("~/.ssh/known_hosts", "~/.ssh/known_hosts2"))
    system = settings.values.get(
        "globalknownhostsfile", ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
    )
    return tuple(settings.expand(name) for name in (*user, *system) if name.lower() != "none")


def _proxy_command(settings: Settings) -> tuple[str, ...]:
    command = settings.get("proxycommand", "none")
    return () if command.lower() == "none" else tuple(shlex.split(settings.expand(command)))
