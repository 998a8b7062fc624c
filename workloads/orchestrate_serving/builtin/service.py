"""The engine behind OpenAI's protocol: requests become tokens, tokens become text and events."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

from tokenizers.decoders import DecodeStream

from .engine import Update
from .generate_engine import make_engine
from .http_server import HttpRequest, Reply
from .model import HubModel, Model, UnusableText, encode_chat, encode_text
from .options import EngineOptions
from .protocol import (
    CHAT,
    COMPLETIONS,
    DONE,
    Answer,
    Asked,
    BadRequest,
    error_body,
    error_event,
    models_body,
    parse_request,
    usage_of,
)
from .slots import Request, TooLong

MAX_OPEN = 16_384  # requests that run or wait


class Service:
    """Answers requests with one engine. ``on_failure`` is called if the engine ends by itself."""

    def __init__(
        self, model: Model | HubModel, options: EngineOptions, on_failure: Callable[[str], None]
    ) -> None:
        self._model = model
        self._loop = asyncio.get_running_loop()
        self._open: dict[int, _Open] = {}
        self._numbers = itertools.count()
        self._on_failure = on_failure
        self._started = int(time.time())
        self.engine = make_engine(model, options, self._pass_on)

    async def handle(self, request: HttpRequest, reply: Reply) -> None:
        """Answer one request of HTTP."""
        try:
            if request.path in {COMPLETIONS, CHAT}:
                _expect(request, "POST")
                await self._answer(request, reply)
            elif request.path == "/v1/models":
                _expect(request, "GET")
                body = models_body(self._model.name, self.engine.context, self._started)
                reply.whole(200, body)
            elif request.path == "/health":
                reply.whole(503 if self.engine.failure else 200, b"{}")
            else:
                raise BadRequest(f"there is no {request.path}", 404)
        except BadRequest as error:
            reply.whole(error.status, error_body(str(error), error.status))

    async def _answer(self, request: HttpRequest, reply: Reply) -> None:
        if len(self._open) >= MAX_OPEN:
            raise BadRequest(f"{MAX_OPEN} requests are being answered; try again later", 429)
        asked = parse_request(request.path, request.body, self._model.name)
        tokens = self._encode(asked)
        number = next(self._numbers)
        answer = Answer(asked, f"request-{number}", self._model.name, int(time.time()))
        made = _request(asked, tokens, self.engine.context)
        opened = _Open(
            asked=asked,
            answer=answer,
            tokenizer=self._model.tokenizer,
            prompt_tokens=len(tokens),
            reply=reply,
        )
        self._open[number] = opened
        try:
            self._submit(number, made)
            if asked.stream:
                reply.begin_events()
                opened.begin()
            await opened.done
        finally:
            del self._open[number]
            self.engine.cancel(number)

    def _submit(self, number: int, request: Request) -> None:
        try:
            self.engine.submit(number, request)
        except TooLong as error:
            raise BadRequest(str(error)) from None

    def _encode(self, asked: Asked) -> tuple[int, ...]:
        """The prompt's tokens. Raises :class:`BadRequest`."""
        tokenizer = self._model.tokenizer
        if isinstance(asked.prompt, tuple):
            if max(asked.prompt) >= self._model.vocabulary:
                raise BadRequest("prompt names a token that the model does not have")
            return asked.prompt
        try:
            if asked.prompt is None:
                return encode_chat(tokenizer, asked.messages)
            return encode_text(tokenizer, asked.prompt)
        except UnusableText as error:
            raise BadRequest(str(error)) from None

    def _pass_on(self, updates: list[Update]) -> None:
        """In the engine's thread."""
        self._loop.call_soon_threadsafe(self._distribute, updates)

    def _distribute(self, updates: list[Update]) -> None:
        for update in updates:
            opened = self._open.get(update.number)
            if opened is not None:
                opened.push(update)
        if self.engine.failure:
            self._on_failure(self.engine.failure)


class _Open:
    """A request that is being answered."""

    def __init__(
        self,
        *,
        asked: Asked,
        answer: Answer,
        tokenizer: Any,
        prompt_tokens: int,
        reply: Reply,
    ) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked = asked
        self._answer = answer
        self._tokenizer = tokenizer
        self._prompt_tokens = prompt_tokens
        self._reply = reply
        self._tokens: list[int] = []
        self._sent = 0  # characters
        self._decoder = DecodeStream(skip_special_tokens=True)

    def begin(self) -> None:
        """The stream is open."""
        opening = self._answer.opening()
        if opening:
            self._reply.event(opening)

    def push(self, update: Update) -> None:
        """Pass on what came. Once the request is done, nothing comes any more."""
        if self.done.done():
            return
        if self._reply.gone:
            self._reply.abort()
            self.done.set_result(None)
            return
        self._tokens.extend(update.tokens)
        if update.error:
            self._fail(update.error)
        elif self._asked.stream:
            self._stream(update)
        elif update.finish:
            self._whole(update.finish)
        if update.finish or update.error:
            self.done.set_result(None)

    def _stream(self, update: Update) -> None:
        backend = self._tokenizer.backend_tokenizer
        text = "".join(self._decoder.step(backend, token) or "" for token in update.tokens)
        if not update.finish:
            self._reply.event(self._answer.part(text))
            self._sent += len(text)
            return
        # The decoder holds back the bytes of a character that is not complete.
        ending = [self._answer.last(self._text()[self._sent :], update.finish)]
        if self._asked.include_usage:
            ending.append(self._answer.usage(self._usage()))
        self._reply.event(b"".join([*ending, DONE]))
        self._reply.end_events()

    def _whole(self, finish: str) -> None:
        self._reply.whole(200, self._answer.whole(self._text(), finish, self._usage()))

    def _fail(self, reason: str) -> None:
        if self._asked.stream:
            self._reply.event(error_event(reason))
            self._reply.end_events()
        else:
            self._reply.whole(500, error_body(reason, 500))

    def _text(self) -> str:
        return str(self._tokenizer.decode(self._tokens, skip_special_tokens=True))

    def _usage(self) -> dict[str, int]:
        return usage_of(self._prompt_tokens, len(self._tokens))


def _request(asked: Asked, tokens: tuple[int, ...], context: int) -> Request:
    max_tokens = context - len(tokens) if asked.max_tokens is None else asked.max_tokens
    return Request(
        tokens=tokens,
        max_tokens=max(1, max_tokens),
        min_tokens=asked.min_tokens,
        temperature=asked.temperature,
        ignore_eos=asked.ignore_eos,
    )


def _expect(request: HttpRequest, method: str) -> None:
    if request.method != method:
        raise BadRequest(f"{request.path} takes {method}, not {request.method}", 405)
