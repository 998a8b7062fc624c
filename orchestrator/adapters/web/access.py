"""Who may ask what: the name that the server is called by, the token, and forged requests."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from orchestrator.adapters.web.settings import PageSettings, is_loopback

COOKIE = "orchestrate-page"
SESSION_S = 7 * 86400
SAFE_METHODS = frozenset({"GET", "HEAD"})
OPEN_PATHS = ("/login", "/static/")  # what is served before the token is known
# The Host header of RFC 9110: a name or address, and perhaps a port.
_HOST = re.compile(r"(?:\[(?P<address>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::\d{1,5})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class AccessRefusal:
    """Why a request is not answered. ``login``: a browser is sent to enter the token."""

    status: int
    reason: str
    login: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """What access depends on; names of headers in lower case."""

    method: str
    path: str
    peer: str
    headers: Mapping[str, str]


def refuse(request: Request, settings: PageSettings) -> AccessRefusal | None:
    """Why ``request`` is not to be answered; None if it is. Pure."""
    if not _is_called_rightly(request.headers.get("host", ""), settings):
        # A page of another site whose name was pointed here (DNS rebinding) sends its own name.
        return AccessRefusal(421, "the server is not known by this name; see --name")
    if request.method not in SAFE_METHODS and not _is_own_form(request.headers):
        return AccessRefusal(403, "the request comes from another site")
    if not settings.token:
        local = is_loopback(request.peer)
        return None if local else AccessRefusal(403, "without a token only this machine may read")
    if request.path.startswith(OPEN_PATHS) or _is_known(request.headers, settings):
        return None
    return AccessRefusal(401, "the token is missing or wrong", login=True)


def is_token(offered: str, settings: PageSettings) -> bool:
    """Whether ``offered`` is the token; takes as long for any wrong one."""
    mine, theirs = settings.token.encode(), offered.encode("utf-8", "replace")
    return bool(settings.token) and hmac.compare_digest(
        _sign(mine, b"token"), _sign(theirs, b"token")
    )


def session_of(settings: PageSettings) -> str:
    """What a browser keeps in place of the token, which it cannot be computed back to."""
    return _sign(settings.token.encode(), b"session").hex()


def form_key(settings: PageSettings, action: str) -> str:
    """What a form of ours carries, and one of another site cannot know. ``action`` is its path."""
    return _sign(settings.token.encode(), b"form " + action.encode()).hex()


def is_form_key(offered: str, settings: PageSettings, action: str) -> bool:
    """Whether a form that asks for ``action`` is ours."""
    theirs = offered.encode("utf-8", "replace")
    return bool(settings.token) and hmac.compare_digest(form_key(settings, action).encode(), theirs)


def _is_called_rightly(host: str, settings: PageSettings) -> bool:
    """An IP address cannot be pointed elsewhere; of names only our own count."""
    called = _HOST.fullmatch(host)
    if called is None:
        return False
    name = called["address"] or called["name"]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.casefold() in {"localhost", *settings.names}
    return True


def _is_own_form(headers: Mapping[str, str]) -> bool:
    origin = headers.get("origin", "")
    return origin.partition("://")[2] == headers.get("host", "") and bool(origin)


def _is_known(headers: Mapping[str, str], settings: PageSettings) -> bool:
    """By the cookie of a browser, or the header of a program."""
    kind, _, offered = headers.get("authorization", "").partition(" ")
    if kind.casefold() == "bearer" and is_token(offered.strip(), settings):
        return True
    try:
        kept = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return False
    return kept is not None and hmac.compare_digest(
        kept.value.encode(), session_of(settings).encode()
    )


def _sign(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, b"orchestrate-page: " + purpose, hashlib.sha256)
