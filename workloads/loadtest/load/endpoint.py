"""Is that an OpenAI-compatible server, and what does it serve? Asked before load is sent."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
import time
from typing import Any

from orchestrate_serving.failures import NO_API, OTHER_MODEL, UNREACHABLE, ServingError

from ..base.job import PATHS, Target

ASK_S = 10.0
# A server that loads its model, or has too much to do, is asked again for so long.
BUSY_S, AGAIN_S = 30.0, 1.0
BUSY = frozenset({429, 503})
MAX_REPLY_BYTES = 4 * 1024 * 1024
MAX_NAMED = 5
KEY = "OPENAI_API_KEY"


class RefusedError(ValueError):
    """An answer with a status other than 200. ``explained``: it says why, or what may help."""

    def __init__(self, target: Target, name: str, reply: http.client.HTTPResponse) -> None:
        self.status = reply.status
        self.again_s = _seconds(reply.getheader("retry-after", ""))
        asked = f"GET {target.path(name)} answers with status {reply.status}"
        location = reply.getheader("location", "")
        hint = f": it sends on to {location[:200]!r}" if 300 <= reply.status < 400 else ""
        if reply.status in {401, 403}:
            hint = f": it wants a key, which is taken from ${KEY} of the ranks (--env {KEY})"
        self.explained = bool(hint)
        super().__init__(f"{asked}{hint}")


class EndpointError(ServingError):
    """Not a server that could be measured; nothing was sent."""


def authorization() -> tuple[tuple[str, str], ...]:
    """The header with the key from the environment, as OpenAI's clients send it; () without one."""
    key = os.environ.get(KEY, "")
    if not key.isprintable():
        raise EndpointError(f"${KEY} has characters that no header may have")
    return (("Authorization", f"Bearer {key}"),) if key else ()


def check_endpoint(url: str, model: str, api: str) -> Target:
    """The server with the model that requests name. Raises :class:`EndpointError`."""
    target = Target(url=url.rstrip("/"), model=model, api=api)
    try:
        served = _served_models(_get_patiently(target, "models"))
    except ssl.SSLCertVerificationError as error:
        raise EndpointError(
            f"{url} cannot be trusted: {error.verify_message}; a certificate of your own is named "
            "by SSL_CERT_FILE of the ranks (--env SSL_CERT_FILE=/path/on/the/node.pem)",
            UNREACHABLE,
        ) from None
    except OSError as error:
        raise EndpointError(
            f"{url} cannot be reached: {str(error) or type(error).__name__}; is the server up, and "
            "may this node connect to it?",
            UNREACHABLE,
        ) from None
    except (ValueError, http.client.HTTPException) as error:
        raise _no_server(target, error) from None
    named = ", ".join(served[:MAX_NAMED])
    if not model and len(served) != 1:
        what = f"{url} serves {len(served)} models ({named}): choose --set model=NAME"
        raise EndpointError(what, OTHER_MODEL)
    if model and model not in served:
        what = f"{url} does not serve {model}, but {named or 'no model'}"
        raise EndpointError(what, OTHER_MODEL)
    return Target(url=target.url, model=model or served[0], api=api)


def _no_server(target: Target, error: Exception) -> EndpointError:
    """Why that is none that could be measured, and which base would be one."""
    if isinstance(error, RefusedError) and error.status in BUSY:
        what = f"{target.url} is not ready after {BUSY_S:.0f} s: {error}"
        return EndpointError(what, UNREACHABLE)
    said = str(error) or type(error).__name__
    if isinstance(error, RefusedError) and error.explained:
        return EndpointError(f"{target.url} is none that can be measured: {said}", NO_API)
    base = "it is the base of its URLs, such as http://HOST:8000/v1"
    with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
        near = Target(url=_near(target.url), model=target.model, api=target.api)
        _served_models(_get(near, "models"))
        base = f"did you mean --set endpoint={near.url}?"
    return EndpointError(f"{target.url} is no OpenAI-compatible server: {said}; {base}", NO_API)


def _near(url: str) -> str:
    """What may have been meant. Raises ``ValueError`` where nothing is likely."""
    for name in (*PATHS.values(), "models"):
        if url.endswith(f"/{name}"):
            return url.removesuffix(f"/{name}")
    if url.endswith("/v1"):
        raise ValueError("nothing lies near")
    return f"{url}/v1"


def _get_patiently(target: Target, name: str) -> Any:
    """Asked again while it says that it is busy, at most ``BUSY_S``. Raises as :func:`_get`."""
    end_s = time.monotonic() + BUSY_S
    while True:
        try:
            return _get(target, name)
        except RefusedError as error:
            left_s = end_s - time.monotonic()
            if error.status not in BUSY or left_s <= 0:
                raise
            time.sleep(min(left_s, max(AGAIN_S, error.again_s)))


def _seconds(text: str) -> float:
    """Of a header; 0 for a date, and for what is no number."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0.0


def _get(target: Target, name: str) -> Any:
    """Raises ``OSError``, ``ValueError``, ``HTTPException``."""
    kind = http.client.HTTPSConnection if target.tls else http.client.HTTPConnection
    connection = kind(target.host, target.port, timeout=ASK_S)
    try:
        connection.request("GET", target.path(name), headers=dict(authorization()))
        reply = connection.getresponse()
        body = reply.read(MAX_REPLY_BYTES)
    finally:
        connection.close()
    if reply.status != 200:
        raise RefusedError(target, name, reply)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError(f"GET {target.path(name)} does not answer with JSON") from None


def _served_models(reply: Any) -> list[str]:
    """Raises ``ValueError``."""
    data = reply.get("data") if isinstance(reply, dict) else None
    if not isinstance(data, list):
        raise ValueError("its list of models has no data")  # noqa: TRY004 - of the server
    names = [entry.get("id") for entry in data if isinstance(entry, dict)]
    return [name for name in names if isinstance(name, str) and name]
