"""OpenAI's protocol: what requests ask, and what answers and their parts look like. Pure.

Fields are those of OpenAI's API reference (completions, chat completions), and ``ignore_eos`` and
``min_tokens`` of vLLM. What this engine cannot do is refused, never ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
DEFAULT_TOKENS = 16  # of a completion that says nothing, as OpenAI's
MAX_TOKENS = 1 << 20
SHOWN = 80  # characters of a value that a message quotes

# Fields that may be there, and the values with which they ask for nothing.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "best_of": (None, 1),
    "echo": (None, False),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "logprobs": (None, False),
    "n": (None, 1),
    "presence_penalty": (None, 0),
    "repetition_penalty": (None, 1),
    "response_format": (None, {"type": "text"}),
    "stop": (None, [], ""),
    "stop_token_ids": (None, []),
    "suffix": (None, ""),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "top_k": (None, -1, 0),
    "top_logprobs": (None, 0),
    "top_p": (None, 1),
    "skip_special_tokens": (None, True),
}
# Fields that change nothing here: who asks, and seeds of draws that are not repeatable anyway.
UNUSED = frozenset({"user", "store", "metadata", "service_tier", "stream_options", "model"})


class BadRequest(ValueError):
    """A request that cannot be answered; ``status`` is that of HTTP."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request. ``prompt`` is text, or tokens; None for the ``messages`` of a chat.

    ``max_tokens`` None is as many as fit.
    """

    prompt: str | tuple[int, ...] | None
    messages: tuple[dict[str, Any], ...]
    max_tokens: int | None
    min_tokens: int
    temperature: float
    ignore_eos: bool
    stream: bool
    include_usage: bool

    @property
    def chat(self) -> bool:
        return self.prompt is None


def parse_request(path: str, body: bytes, served: str) -> Asked:
    """What a request asks of the model ``served``. Raises :class:`BadRequest`."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise BadRequest("the body is no JSON object")
    _refuse_what_is_not_done(fields)
    if fields.get("model") not in (None, "", served):
        named = json.dumps(fields["model"])[:SHOWN]
        raise BadRequest(f"the model {named} is not served here: {json.dumps(served)} is", 404)
    chat = path == CHAT
    limit = "max_completion_tokens" if chat and "max_completion_tokens" in fields else "max_tokens"
    default = None if chat else DEFAULT_TOKENS
    max_tokens = _number(fields, limit, default, 1, MAX_TOKENS)
    options = fields.get("stream_options")
    return Asked(
        prompt=None if chat else _prompt(fields.get("prompt")),
        messages=_messages(fields.get("messages")) if chat else (),
        max_tokens=None if max_tokens is None else int(max_tokens),
        min_tokens=int(_number(fields, "min_tokens", 0, 0, MAX_TOKENS) or 0),
        temperature=float(_number(fields, "temperature", 1.0, 0, 100) or 0),
        ignore_eos=_flag(fields, "ignore_eos"),
        stream=_flag(fields, "stream"),
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def _refuse_what_is_not_done(fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if name in NEUTRAL and value not in NEUTRAL[name]:
            shown = json.dumps(value)[:SHOWN]
            raise BadRequest(f"{name} = {shown} is not supported by this engine")
        if name == "seed" and value is not None and fields.get("temperature") != 0:
            raise BadRequest("seed is not supported by this engine but with temperature 0")


def _prompt(value: Any) -> str | tuple[int, ...]:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
        value = value[0]
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(_is_token(item) for item in value):
        return tuple(value)
    raise BadRequest("prompt is neither one text nor one list of tokens")


def _is_token(item: Any) -> bool:
    return isinstance(item, int) and not isinstance(item, bool) and item >= 0


def _messages(value: Any) -> tuple[dict[str, Any], ...]:
    good = isinstance(value, list) and value
    if not good or not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in value):
        raise BadRequest("messages is no list of {role, content}")
    return tuple(value)


def _number(
    fields: Mapping[str, Any], name: str, default: float | None, least: float, most: float
) -> float | None:
    value = fields.get(name)
    if value is None:
        return default
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not least <= value <= most:  # neither is NaN
        raise BadRequest(f"{name} is no number from {_plain(least)} to {_plain(most)}")
    return float(value)


def _plain(bound: float) -> str:
    """Never with an exponent: bounds are whole, or short."""
    return str(int(bound)) if bound == int(bound) else str(bound)


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRequest(f"{name} is neither true nor false")
    return bool(value)


class Answer:
    """The JSON of one request's answer, whole or in parts. ``created`` is in Unix seconds."""

    def __init__(self, asked: Asked, name: str, model: str, created: int) -> None:
        self._chat = asked.chat
        kind = "chat.completion" if asked.chat else "text_completion"
        part = "chat.completion.chunk" if asked.chat else "text_completion"
        common = {"id": name, "created": created, "model": model}
        self._whole = {**common, "object": kind}
        self._part = {**common, "object": part}
        # Parts differ in their text alone, so all around it is made once.
        empty = self._choice("\0", None)
        before, _, after = json.dumps({**self._part, "choices": [empty]}).partition('"\\u0000"')
        self._before, self._after = f"data: {before}".encode(), f"{after}\n\n".encode()

    def whole(self, text: str, finish: str, usage: Mapping[str, int]) -> bytes:
        """The answer to a request that is not streamed."""
        said: dict[str, Any] = {"index": 0, "finish_reason": finish, "logprobs": None}
        if self._chat:
            said["message"] = {"role": "assistant", "content": text}
        else:
            said["text"] = text
        return json.dumps({**self._whole, "choices": [said], "usage": usage}).encode()

    def part(self, text: str) -> bytes:
        """An event with more text."""
        return self._before + json.dumps(text).encode() + self._after

    def last(self, text: str, finish: str) -> bytes:
        """The event that ends the text."""
        return _event({**self._part, "choices": [self._choice(text, finish)]})

    def opening(self) -> bytes:
        """The first event of a chat says who speaks; a completion has none."""
        if not self._chat:
            return b""
        delta = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        return _event({**self._part, "choices": [choice]})

    def usage(self, usage: Mapping[str, int]) -> bytes:
        """The event with token counts, without text."""
        return _event({**self._part, "choices": [], "usage": usage})

    def _choice(self, text: str, finish: str | None) -> dict[str, Any]:
        if self._chat:
            return {"index": 0, "delta": {"content": text}, "finish_reason": finish}
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}


DONE = b"data: [DONE]\n\n"


def usage_of(prompt: int, completion: int) -> dict[str, int]:
    """Token counts as OpenAI names them."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def error_body(message: str, status: int) -> bytes:
    """An error as OpenAI's clients read it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return json.dumps({"error": {"message": message, "type": kind, "code": status}}).encode()


def error_event(message: str) -> bytes:
    """An error in the middle of a stream."""
    return b"data: " + error_body(message, 500) + b"\n\n"


def models_body(model: str, context: int, created: int) -> bytes:
    """The list of models, which has one."""
    entry = {
        "id": model,
        "object": "model",
        "created": created,
        "owned_by": "orchestrate",
        "max_model_len": context,
    }
    return json.dumps({"object": "list", "data": [entry]}).encode()


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"
