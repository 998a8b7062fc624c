"""The notation of jump hosts: ``[user@]host[:port]`` or ``ssh://...``, several by commas."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from urllib.parse import unquote

MAX_PORT = 65535
_NUMBER = re.compile(r"\+?[0-9]{1,18}")
_DOMAIN = re.compile(r"[A-Za-z0-9](?:\.?[A-Za-z0-9_-])*\.?", re.ASCII)
_ENCODED = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*")


@dataclass(frozen=True, slots=True)
class Hop:
    """One jump host. ``None`` leaves user and port to the jump host's own configuration."""

    host: str
    user: str | None = None
    port: int | None = None


def parse_port(text: str) -> int:
    """A port, also by the name of a TCP service. Raises ``ValueError``."""
    number = int(text) if _NUMBER.fullmatch(text.lstrip()) else -1
    if not 0 <= number <= MAX_PORT:
        try:
            number = socket.getservbyname(text, "tcp")
        except (OSError, UnicodeError):
            number = 0
    if number < 1:
        raise ValueError(f"bad port {text!r}")
    return number


def parse_domain(text: str) -> str:
    """A domain in lower case, without a dot at its end. Raises ``ValueError``."""
    if not _DOMAIN.fullmatch(text):
        raise ValueError(f"bad domain {text[:80]!r}")
    return text.lower().removesuffix(".")


def parse_hops(text: str) -> tuple[Hop, ...]:
    """The hops of a ``ProxyJump`` in the order of travel. Raises ``ValueError``."""
    return tuple(_parse_hop(part) for part in text.split(","))


def _parse_hop(text: str) -> Hop:
    if text.startswith("ssh://"):
        return _parse_uri(text.removeprefix("ssh://"), text)
    user, at, rest = text.rpartition("@")
    host, port, end = _host_and_port(rest, text)
    if (at and not user) or end == "/":
        raise ValueError(f"bad jump host {text!r}")
    return Hop(host, user or None, parse_port(port) if port else None)


def _parse_uri(text: str, whole: str) -> Hop:
    info, at, rest = text.partition("@")
    if not at:
        info, rest = "", text
    user = info.partition(";")[0]
    host, port, end = _host_and_port(rest, whole)
    path = port if end == "/" else port.partition("/")[2]
    port = "" if end == "/" else port.partition("/")[0]
    if (at and not user) or path or not _ENCODED.fullmatch(user):
        raise ValueError(f"bad jump host {whole!r}")
    parse_domain(host)
    return Hop(host, unquote(user) or None, parse_port(port) if port else None)


def _host_and_port(text: str, whole: str) -> tuple[str, str, str]:
    """The host without brackets, what follows it, and the character between them."""
    if text.startswith("["):
        inside, closed, after = text[1:].partition("]")
        host, delimiter, rest = inside, after[:1], after[1:]
        valid = closed and delimiter in {"", ":", "/"}
    else:
        found = re.search("[:/]", text)
        host = text[: found.start()] if found else text
        delimiter, rest = (found[0], text[found.end() :]) if found else ("", "")
        valid = True
    if not host or not valid:
        raise ValueError(f"bad jump host {whole!r}")
    return host, rest, delimiter
