"""What is asked of a server over HTTP: is it healthy, which model does it serve, does it answer."""

from __future__ import annotations

import http.client
import json
from typing import Any

MAX_ANSWER_BYTES = 1024 * 1024
ANSWER_S = 5.0


class NoAnswer(Exception):
    """The server gave no usable answer; the text says what it did instead."""


def is_healthy(host: str, port: int, path: str) -> bool:
    """Whether ``GET path`` answers 200."""
    try:
        status, _ = _ask(host, port, "GET", path, timeout_s=ANSWER_S)
    except NoAnswer:
        return False
    return status == http.client.OK


def served_model(host: str, port: int, preferred: str) -> str:
    """The name by which requests ask for the model: ``preferred`` if served, else the first one.

    Raises :class:`NoAnswer` for what is no answer of an OpenAI-compatible server.
    """
    status, body = _ask(host, port, "GET", "/v1/models", timeout_s=ANSWER_S)
    data = body.get("data") if isinstance(body, dict) else None
    if status != http.client.OK or not isinstance(data, list):
        raise NoAnswer(f"/v1/models answered {status}, and no list of models")
    names = [item.get("id") for item in data if isinstance(item, dict)]
    served = [name for name in names if isinstance(name, str)]
    if preferred in served or not served:
        return preferred
    return preferred if preferred and len(served) > 1 else served[0]


def warm_up(host: str, port: int, model: str, timeout_s: float) -> None:
    """One short completion. Raises :class:`NoAnswer` if none comes."""
    request = {"model": model, "prompt": "warm up", "max_tokens": 4, "temperature": 0}
    status, body = _ask(host, port, "POST", "/v1/completions", request, timeout_s=timeout_s)
    choices = body.get("choices") if isinstance(body, dict) else None
    if status != http.client.OK or not isinstance(choices, list):
        raise NoAnswer(f"/v1/completions answered {status}: {json.dumps(body)[:300]}")


def _ask(
    host: str, port: int, method: str, path: str, body: Any = None, *, timeout_s: float
) -> tuple[int, Any]:
    """The status and the JSON of an answer; None for what is no JSON."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read(MAX_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(f"{path}: {str(error) or type(error).__name__}") from error
    finally:
        connection.close()
    try:
        return answer.status, json.loads(text)
    except ValueError:
        return answer.status, None
