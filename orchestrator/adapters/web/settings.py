"""How the page is served: where it listens, who may read it, and what it may do."""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.core.base.errors import UsageError

TOKEN_VARIABLE = "ORCHESTRATE_PAGE_TOKEN"  # noqa: S105 - the name of the variable
MIN_TOKEN, MAX_TOKEN = 16, 4096
MAKE_TOKEN = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))' > FILE; chmod 600 FILE"  # noqa: S105


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSettings:
    """``token`` empty: none is asked for, and only this machine may read. ``names``: what the
    server may be called in requests, besides IP addresses and ``localhost``. ``allow_stop``: runs
    may be stopped from the page.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    token: str = field(default="", repr=False)
    names: frozenset[str] = frozenset()
    allow_stop: bool = False


def page_settings(
    listen: str, token: str, names: tuple[str, ...], *, allow_stop: bool
) -> PageSettings:
    """Raises :class:`UsageError` for an address that is none, or one that others reach, and for
    stopping, without a token.
    """
    host, port = _parse_listen(listen)
    remedy = f"set {TOKEN_VARIABLE}, or name a --token-file: {MAKE_TOKEN}"
    if not token and not is_loopback(host):
        what = f"{host} can be reached from other machines, and no token is set"
        raise UsageError(what, id="serve.token", where="--listen", remedy=remedy)
    if not token and allow_stop:
        what = "stopping runs from the page needs a token"
        raise UsageError(what, id="serve.token", where="--allow-stop", remedy=remedy)
    called = frozenset(name.casefold() for name in (*names, host))
    return PageSettings(host=host, port=port, token=token, names=called, allow_stop=allow_stop)


def read_token(file: Path | None, environ: Mapping[str, str]) -> str:
    """The token from ``file``, else from the environment; empty where neither has one.

    Raises :class:`UsageError` for a file that others may read, and for a token that is guessed too
    easily. No message holds any of it.
    """
    where = str(file) if file else TOKEN_VARIABLE
    token = _read_private(file) if file else environ.get(TOKEN_VARIABLE, "").strip()
    if not token and file is None:
        return ""
    if not MIN_TOKEN <= len(token) <= MAX_TOKEN or not token.isascii() or not token.isprintable():
        what = f"a token has {MIN_TOKEN} to {MAX_TOKEN} printable ASCII characters on one line"
        raise UsageError(what, id="serve.token", where=where, remedy=MAKE_TOKEN)
    return token


def _read_private(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            content = stream.read(MAX_TOKEN + 2)
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError("cannot be read", id="serve.token", where=file, why=why) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        what = "other users of this machine may read the token"
        raise UsageError(what, id="serve.token", where=file, remedy=f"chmod 600 {file}")
    return content.decode("utf-8", "replace").strip()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``, an address or ``localhost``."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.casefold() == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _parse_listen(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    number = int(port) if port.isascii() and port.isdecimal() and len(port) <= 5 else -1
    if not colon or not host or not 0 <= number <= 65535:
        what, remedy = f"not HOST:PORT: {text!r}", "such as 127.0.0.1:8765 or [::1]:8765"
        raise UsageError(what, id="serve.listen", where="--listen", remedy=remedy)
    return host, number
