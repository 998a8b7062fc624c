"""The name to connect to: addresses in their usual form, and ``CanonicalizeHostname``.

Modelled on ``resolve_canonicalize`` of OpenSSH 9.2 (ssh.c). Names are looked up only where the
configuration asks for it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from orchestrator.adapters.transport.ssh_config.settings import Settings
from orchestrator.core.base.errors import UsageError
from orchestrator.parsing.ssh_config.patterns import matches_host

FAMILIES = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}
MAX_DOTS = 1


def canonical_name(settings: Settings) -> str:
    """The host after the first pass. Raises :class:`UsageError` when it must be found in DNS and is
    not.
    """
    host = settings.host
    if _is_address(host, settings):
        return _usual_form(host, settings)
    host = host.lower()
    direct = not settings.words("proxycommand") and not settings.get("proxyjump")
    wanted = settings.get("canonicalizehostname", "no")
    if not direct and wanted != "always":
        return host
    if wanted != "no":
        for candidate in _candidate_names(host, settings):
            found = _look_up(f"{candidate}.", settings)
            if found is not None:
                return _permitted_alias(candidate, found, settings)
        if settings.get("canonicalizefallbacklocal") == "no" and _is_unqualified(host, settings):
            raise UsageError(
                f"CanonicalizeHostname does not find {host!r}",
                id="OR-SSH-005",
                where=settings.values["canonicalizehostname"].place,
                why="no name of CanonicalDomains resolves, and CanonicalizeFallbackLocal is no",
            )
    if wanted != "no" and settings.words("canonicalizepermittedcnames"):
        return _permitted_alias(host, _look_up(host, settings) or "", settings)
    return host


def _numeric_addresses(host: str, settings: Settings) -> list[tuple[str, int]]:
    """The socket addresses that ``host`` is by itself."""
    family = FAMILIES[settings.get("addressfamily", "any")]
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    try:
        found = socket.getaddrinfo(host, "22", family, socket.SOCK_STREAM, 0, flags)
    except (OSError, ValueError):
        return []
    return [entry[4] for entry in found]  # type: ignore[misc]


def _is_address(host: str, settings: Settings) -> bool:
    if "%" in host or ":" in host or not host.strip("0123456789."):
        return True
    return len(_numeric_addresses(host, settings)) == 1


def _usual_form(host: str, settings: Settings) -> str:
    found = _numeric_addresses(host, settings)
    if len(found) != 1:
        return host
    return socket.getnameinfo(found[0], socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]


def _is_unqualified(host: str, settings: Settings) -> bool:
    limit = int(settings.get("canonicalizemaxdots") or MAX_DOTS)
    return host.endswith(".") or host.count(".") <= limit


def _candidate_names(host: str, settings: Settings) -> Iterator[str]:
    """Full names to try, without the dot at their end."""
    if host.endswith("."):
        yield host[:-1]
    elif _is_unqualified(host, settings):
        for domain in settings.words("canonicaldomains"):
            yield f"{host}.{domain}"


def _look_up(name: str, settings: Settings) -> str | None:
    """The canonical name in DNS, empty if there is none; None: it does not resolve."""
    family = FAMILIES[settings.get("addressfamily", "any")]
    try:
        found = socket.getaddrinfo(
            name, settings.port, family, socket.SOCK_STREAM, 0, socket.AI_CANONNAME
        )
    except (OSError, ValueError):
        return None
    return found[0][3]


def _permitted_alias(name: str, alias_of: str, settings: Settings) -> str:
    """``alias_of`` if a rule of CanonicalizePermittedCNAMEs allows to follow it, else ``name``."""
    for rule in settings.words("canonicalizepermittedcnames"):
        source, _, target = (rule.lower() if rule != "*" else "*:*").partition(":")
        if alias_of and matches_host(name, source) and matches_host(alias_of, target):
            return alias_of
    return name
