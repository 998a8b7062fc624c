"""The way to a server through its jump hosts, each checked as strictly as the server itself.

The options of a command line do not reach the ``ssh`` that ``ProxyJump`` starts: there, a line
``StrictHostKeyChecking no`` would let any key in. So each jump host is a ProxyCommand of ours, with
the options of ours.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.adapters.transport.openssh import openssh_errors
from orchestrator.adapters.transport.openssh.ssh_program import read_settings
from orchestrator.adapters.transport.openssh.ssh_settings import SshSettings
from orchestrator.core.model.inventory import SshEndpoint

if TYPE_CHECKING:
    from orchestrator.adapters.transport.transport import ConnectLimits
    from orchestrator.parsing.ssh_config.hops import Hop

MAX_HOPS = 8
_TOKENS = "(?s)%(.?)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A server, what ``ssh_config`` says of it, and the way to its jump host, if it has one."""

    endpoint: SshEndpoint
    settings: SshSettings
    via: Way | None = None

    def stations(self) -> Iterator[Way]:
        """The server, then its jump hosts, the nearest to us last."""
        yield self
        if self.via is not None:
            yield from self.via.stations()

    def words(self, limits: ConnectLimits, *, asks: bool = False) -> tuple[str, ...]:
        """What ``ssh`` must be given to connect for us; the destination is the last."""
        options = connection_options(limits, asks=asks)
        if self.via is None:
            return (*options, *self.endpoint.argv)
        proxy = f"ProxyCommand={_proxy_command(self.via.words(limits, asks=asks))}"
        direct = replace(self.endpoint, jump=None)
        return (*options, "-o", proxy, "-o", "ProxyUseFdpass=no", *direct.argv)


def connection_options(limits: ConnectLimits, *, asks: bool = False) -> tuple[str, ...]:
    """How ``ssh`` connects for us, beside what its configuration says.

    ``asks``: it may ask the user for what a login needs.
    """
    options = {
        "ConnectTimeout": max(1, round(limits.connect_timeout_s)),
        "ServerAliveInterval": max(1, round(limits.keepalive_interval_s)),
        "ServerAliveCountMax": limits.keepalive_count,
        "BatchMode": "no" if asks else "yes",
        "StrictHostKeyChecking": "ask" if asks else "yes",
        "ClearAllForwardings": "yes",
        "RemoteCommand": "none",
        "RequestTTY": "no",
        "UpdateHostKeys": "no",
        "LogLevel": "INFO",
    }
    return tuple(word for name, value in options.items() for word in ("-o", f"{name}={value}"))


async def read_way(endpoint: SshEndpoint, timeout_s: float) -> Way:
    """What the configuration comes to, for the server and each jump host.

    Raises ``UsageError`` and ``PreflightError``, also for jump hosts that form a circle.
    """
    return await _read_way(endpoint, timeout_s, MAX_HOPS)


async def _read_way(endpoint: SshEndpoint, timeout_s: float, hops_left: int) -> Way:
    settings = await read_settings(endpoint, timeout_s)
    hops = _hops(endpoint, settings)
    if len(hops) > hops_left:
        raise openssh_errors.too_many_hops(endpoint, settings.first("proxyjump"), MAX_HOPS)
    via: Way | None = None
    for hop in hops:  # only the first one's own ProxyJump counts
        jump = _jump_endpoint(endpoint, hop)
        if via is None:
            via = await _read_way(jump, timeout_s, hops_left - len(hops))
        else:
            direct = replace(jump, jump="none")
            via = Way(endpoint=jump, settings=await read_settings(direct, timeout_s), via=via)
    return Way(endpoint=endpoint, settings=settings, via=via)


def _hops(endpoint: SshEndpoint, settings: SshSettings) -> tuple[Hop, ...]:
    text = settings.first("proxyjump")
    if text in {"", "none"}:
        return ()
    from orchestrator.parsing.ssh_config.hops import parse_hops

    try:
        return parse_hops(_expand_tokens(text, endpoint, settings))
    except ValueError as error:
        raise openssh_errors.refused_configuration(endpoint, f"ProxyJump {text}: {error}") from None


def _expand_tokens(text: str, endpoint: SshEndpoint, settings: SshSettings) -> str:
    """What ``ssh`` makes of a ProxyJump. Raises ``ValueError``."""
    host = settings.first("hostname")
    tokens: Mapping[str, str] = {
        "%": "%",
        "h": host,
        "k": settings.first("hostkeyalias") or host,
        "n": endpoint.host,
        "p": settings.first("port"),
        "r": settings.first("user"),
    }

    def value(found: re.Match[str]) -> str:
        if found[1] not in tokens:
            raise ValueError(f"no such token: {found[0]}")
        return tokens[found[1]]

    return re.sub(_TOKENS, value, text)


def _jump_endpoint(endpoint: SshEndpoint, hop: Hop) -> SshEndpoint:
    """As ``ssh -J`` has it, and with the known_hosts file of the inventory."""
    return SshEndpoint(
        host=hop.host,
        user=hop.user,
        port=hop.port,
        ssh_config=endpoint.ssh_config,
        known_hosts=endpoint.known_hosts,
    )


def _proxy_command(words: tuple[str, ...]) -> str:
    """A line for the user's shell. ``ssh`` expands its tokens first: only these two are meant."""
    *options, destination = (word.replace("%", "%%") for word in words)
    return shlex.join(["ssh", *options, "-W", "[%h]:%p", destination])
