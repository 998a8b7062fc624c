"""Names of nodes and hosts in an inventory, and what other tools write together with them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from orchestrator.core.base.nodeset import (
    MAX_NAME_LENGTH,
    NodeSetError,
    expand_nodeset,
    is_name,
)

MAX_PORT = 65_535
LOGIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._@\\-]*[A-Za-z0-9._@-])?")  # also DOMAIN\user
_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:%-]*")
_PLAIN = re.compile(r"(?!(?:true|false|null)\Z)[A-Za-z_][\w.-]*|[0-9]+(?:\.[0-9]+){3}", re.ASCII)
_BRACKETED = re.compile(r"\[([A-Za-z0-9_:.-]+(?:%[\w.-]+)?)\](?::(.*))?")


def check_nodeset(text: str) -> str:
    """``text``, which expands to names. Raises :class:`ValueError`."""
    try:
        expand_nodeset(text)
    except NodeSetError as error:
        raise ValueError(f"not a node name or a folded set: {error}") from None
    return text


def check_node_names(text: str) -> str:
    """``text``, which expands to names of nodes. Raises :class:`ValueError`, with the fields to
    write for a destination of ssh.
    """
    try:
        return check_nodeset(text)
    except ValueError as error:
        destination = _split_destination(text)
        if destination is None or _HOST.fullmatch(destination.host) is None:
            raise
        key = "name" if is_name(destination.host) else "name: NAME, ssh"
        raise ValueError(f"{error}; write {{{key}: {destination}}}") from None


def check_host(text: str) -> str:
    """``text`` as a host name, an SSH alias, an address without brackets, or a folded set of them.

    Raises :class:`ValueError`, with the fields to write for what is more than a host.
    """
    if "://" in text:
        raise ValueError("not a URI: write the host alone, with user: and port: beside it")
    destination = _split_destination(text)
    if destination is not None:
        return _sole_host(destination)
    if text.count(":") > 1 and not _is_ipv6(text):
        raise ValueError(f"neither a host name nor an IPv6 address: {text[:80]!r}")
    if "[" in text:
        return check_nodeset(text)
    if len(text) > MAX_NAME_LENGTH or not _HOST.fullmatch(text):
        raise ValueError(f"not a host name or SSH alias: {text[:80]!r}")
    return text


@dataclass(frozen=True, slots=True)
class _Destination:
    """A host with what other tools write beside it; None = not given. ``str`` is how it is written
    here, behind the key of the host.
    """

    host: str
    user: str | None = None
    port: str | None = None

    def __str__(self) -> str:
        """A user or port that is none stands as NAME or NUMBER."""
        user, port = self.user, self.port
        words = [_quote_text(self.host)]
        if user is not None:
            words.append(f"user: {_quote_text(user) if LOGIN.fullmatch(user) else 'NAME'}")
        if port is not None:
            words.append(f"port: {port if _is_port(port) else 'NUMBER'}")
        return ", ".join(words)


def _split_destination(text: str) -> _Destination | None:
    """``user@host:port`` with at least one of user, port and brackets; None for anything else."""
    before, at, rest = text.rpartition("@")
    user = before if at else None
    found = _BRACKETED.fullmatch(rest)
    if found is not None and (_is_ipv6(found[1]) or re.search("[A-Za-z]", found[1])):
        return _Destination(found[1], user, found[2])
    host, colon, port = rest.rpartition(":")
    if colon and ":" not in host:
        return _Destination(host, user, port)
    return _Destination(rest, user) if at else None


def _sole_host(destination: _Destination) -> str:
    """The host of an address in brackets; with a user or port beside it, it is refused."""
    given = {"user": destination.user, "port": destination.port}
    names = [name for name, value in given.items() if value is not None]
    if not names:
        return check_host(destination.host)
    try:
        check_host(destination.host)
    except ValueError:
        raise ValueError(f"not a host name or SSH alias: {destination.host[:80]!r}") from None
    each = "has a field of its own" if len(names) == 1 else "have fields of their own"
    raise ValueError(f"the {' and the '.join(names)} {each}; write ssh: {destination}")


def _quote_text(text: str) -> str:
    """``text`` in quotes where YAML would not read it as text without."""
    return text if _PLAIN.fullmatch(text) else f"'{text}'"


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 6 and 0 < int(text) <= MAX_PORT


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
