"""Is that an OpenAI-compatible server, and what does it serve? Asked before load is sent."""

from __future__ import annotations

import http.client
import json
import os
from typing import Any

from orchestrate_serving.failures import NO_API, OTHER_MODEL, UNREACHABLE, ServingError

from ..base.job import Target

ASK_S = 10.0
MAX_REPLY_BYTES = 4 * 1024 * 1024
MAX_NAMED = 5
KEY = "OPENAI_API_KEY"


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
        served = _served_models(_get(target, "models"))
    except OSError as error:
        raise EndpointError(
            f"{url} cannot be reached: {str(error) or type(error).__name__}; is the server up, and "
            "may this node connect to it?",
            UNREACHABLE,
        ) from None
    except (ValueError, http.client.HTTPException) as error:
        raise EndpointError(
            f"{url} is no OpenAI-compatible server: {str(error) or type(error).__name__}; it is "
            "the base of its URLs, such as http://HOST:8000/v1",
            NO_API,
        ) from None
    named = ", ".join(served[:MAX_NAMED])
    if not model and len(served) != 1:
        what = f"{url} serves {len(served)} models ({named}): choose --set model=NAME"
        raise EndpointError(what, OTHER_MODEL)
    if model and model not in served:
        what = f"{url} does not serve {model}, but {named or 'no model'}"
        raise EndpointError(what, OTHER_MODEL)
    return Target(url=target.url, model=model or served[0], api=api)


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
        raise ValueError(f"GET {target.path(name)} answers with status {reply.status}")
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
