"""Server-sent events: a feed as a response that lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from orchestrator.adapters.web.page_feed import Cursor, Feed, Streams

ALIVE_S = 20.0  # a comment so often: a connection whose other side has gone is noticed
RETRY_MS = 3000
LEAST_S = 0.5  # between two messages of one stream


def stream_feed(
    request: Request, feed: Feed, streams: Streams, reading: AbstractContextManager[None]
) -> Response:
    """The changes of ``feed`` after what the browser has seen; 503 if there are too many readers.
    ``reading`` is held for as long as the browser reads.
    """
    if streams.open >= streams.limit:
        return Response("too many readers\n", 503, headers={"Retry-After": "10"})
    seen = request.headers.get("last-event-id") or request.query_params.get("after", "")
    return StreamingResponse(
        _messages(feed, Cursor.parse(seen), streams, reading), media_type="text/event-stream"
    )


async def _messages(
    feed: Feed, seen: Cursor | None, streams: Streams, reading: AbstractContextManager[None]
) -> AsyncIterator[bytes]:
    """Each message is taken when the one before has been sent: a slow reader gets fewer."""
    with streams.one_more(), reading:
        yield b"retry: %d\n\n" % RETRY_MS
        while True:
            if seen is not None and not await feed.wait(seen, ALIVE_S):
                yield b": alive\n\n"
                continue
            seen, data = feed.message(seen)
            yield b"id: %s\ndata: %s\n\n" % (str(seen).encode(), data)
            await asyncio.sleep(LEAST_S)
