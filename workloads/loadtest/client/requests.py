"""The bytes of each request."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..base.job import CHAT, Ask, Job, Target

_MARK = "\x00number\x00"


class RequestWriter:
    """Makes requests from prompts that are encoded once: a request costs two copies."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._heads = [_head(target, job.headers) for target in job.targets]
        self._bodies = [
            [_body(target, ask, job).split(_number_mark()) for ask in job.asks]
            for target in job.targets
        ]

    def request(self, number: int, target: int) -> bytes:
        """The ``number``-th request of the load, to this target."""
        bodies = self._bodies[target]
        parts = bodies[number % len(bodies)]
        body = self._job.mark(number).encode().join(parts) if len(parts) > 1 else parts[0]
        return b"%bcontent-length: %d\r\n\r\n%b" % (self._heads[target], len(body), body)


def _number_mark() -> bytes:
    return json.dumps(_MARK)[1:-1].encode()


def _head(target: Target, headers: Sequence[tuple[str, str]]) -> bytes:
    lines = [
        f"POST {target.path()} HTTP/1.1",
        f"Host: {target.authority}",
        "Content-Type: application/json",
        "Accept: text/event-stream",
        "Accept-Encoding: identity",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "".join(f"{line}\r\n" for line in lines).encode()


def _body(target: Target, ask: Ask, job: Job) -> bytes:
    """With a mark where the request's number belongs, if prompts are to be unique."""
    lead = f"{_MARK} " if job.unique else ""
    entry: dict[str, object] = {"model": target.model, "stream": True}
    if target.api == CHAT:
        messages = ask.messages or ({"role": "user", "content": lead + ask.text},)
        entry["messages"] = list(messages)
    else:
        entry["prompt"] = lead + ask.text
    entry |= {job.limit_field: ask.output_tokens or job.output_tokens, "temperature": 0}
    if job.ask_usage:
        entry["stream_options"] = {"include_usage": True}
    if job.ignore_eos:
        entry["ignore_eos"] = True
    return json.dumps(entry).encode()
