"""The fields of a form, of bounded size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request

MAX_BYTES = 16 << 10
MAX_FIELDS = 20
LIMIT_S = 10.0


async def read_form(request: Request) -> Mapping[str, str]:
    """Raises ``HTTPException`` for a form that is large, slow or none."""
    body = b""
    try:
        async with asyncio.timeout(LIMIT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise HTTPException(413, "the form is too large")
    except TimeoutError as error:
        raise HTTPException(408, "the form did not arrive in time") from error
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=MAX_FIELDS))
    except ValueError as error:
        raise HTTPException(400, "not a form") from error
