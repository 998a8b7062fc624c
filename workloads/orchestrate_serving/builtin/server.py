"""The built-in engine as a server: ``python -m orchestrate_serving.builtin.server --port 8000``.

Without ``--model`` it serves a small generated model, so it needs no GPU and no download.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from functools import partial

from .http_server import MAX_HEAD_BYTES, HttpRequest, Reply, serve_connection
from .model import HubModel, Model, load_any_model
from .options import KERNELS, EngineOptions
from .protocol import error_body
from .service import Service
from .weights import UnsupportedModel

BACKLOG = 4096
FALLBACK = (
    "so transformers' generate answers, one batch after the other, which is slower; engine=vllm or "
    "sglang may know this model"
)


class LoadFailed(Exception):
    """The model could not be loaded; the text says why."""


class Server:
    """Listens at once, and answers 503 until the model is there: the port is kept meanwhile."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._service: Service | None = None
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def run(self) -> str:
        """Serve until a signal, which gives "", or a failure, which gives its reason."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, "")
        options = self._options
        connect = partial(serve_connection, self._handle)
        listener = await asyncio.start_server(
            connect, options.host, options.port, backlog=BACKLOG, limit=MAX_HEAD_BYTES
        )
        loading = loop.create_task(self._load())
        reason = await self._ended
        listener.close()
        loading.cancel()
        return reason

    async def _load(self) -> None:
        began = time.monotonic()
        try:
            model = await asyncio.to_thread(_load_model, self._options)
            service = Service(model, _engine_options(self._options), self._end)
            await asyncio.to_thread(service.engine.start)
        except LoadFailed as error:
            self._end(str(error))
            return
        took = time.monotonic() - began
        if isinstance(model, HubModel):
            print(f"{model.why}: {FALLBACK}", flush=True)
        print(
            f"ready after {took:.1f} s: {model.name} in {model.dtype} on {model.device}, "
            f"{service.engine.slots} slots of {service.engine.context} tokens",
            flush=True,
        )
        self._service = service

    async def _handle(self, request: HttpRequest, reply: Reply) -> None:
        if self._service is None:
            reply.whole(503, error_body("the model is being loaded", 503))
            return
        await self._service.handle(request, reply)

    def _end(self, reason: str) -> None:
        if not self._ended.done():
            self._ended.set_result(reason)


def _load_model(options: argparse.Namespace) -> Model | HubModel:
    """Raises :class:`LoadFailed`."""
    import torch

    gpu = torch.cuda.is_available()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = ("cuda" if gpu else "cpu") if options.device == "auto" else options.device
    dtype = ("bf16" if device == "cuda" else "fp32") if options.dtype == "auto" else options.dtype
    try:
        return load_any_model(
            options.model,
            dtype=dtype,
            device=device,
            made=options.random_weights,
            seed=options.seed,
            shape=options.shape,
        )
    except UnsupportedModel as error:
        raise LoadFailed(
            f"{options.model}: {error}, so weights cannot be drawn for it; leave out "
            "--random-weights, or set engine=vllm, sglang or transformers"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise LoadFailed(
            f"{options.model or options.shape or 'the generated model'}: {error}"
        ) from error


def _engine_options(options: argparse.Namespace) -> EngineOptions:
    return EngineOptions(
        slots=options.slots,
        context=options.context,
        prefill_tokens=options.prefill_tokens,
        kernels=options.kernels,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="orchestrate_serving.builtin.server", description=__doc__)
    add = parser.add_argument
    add("--model", default="", help="folder or hub name; empty = a small generated one")
    add("--shape", default="", help="sizes of a known model, with random weights; no download")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8000)
    add("--dtype", choices=["auto", "bf16", "fp32"], default="auto")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--slots", type=int, default=0, help="requests at once; 0 = what memory holds, at most 256")
    add("--context", type=int, default=0, help="tokens of a request; 0 = the model's, at most 4096")
    add("--prefill-tokens", type=int, default=8192, help="prompt tokens computed together")
    add("--kernels", choices=KERNELS, default="auto", help="auto = Triton's on a GPU")
    add("--threads", type=int, default=0, help="CPU threads; 0 = torch's choice")
    add("--seed", type=int, default=0, help="of generated weights")
    add("--random-weights", action="store_true", help="the model's shape alone, weights drawn here")
    return parser


async def _serve(options: argparse.Namespace) -> str:
    try:
        return await Server(options).run()
    except OSError as error:
        return f"{options.host}:{options.port}: {error.strerror or error}"


def main() -> None:
    """Serve; status 1 and one line on stderr if that cannot be done."""
    reason = asyncio.run(_serve(_parser().parse_args()))
    if reason:
        print(f"engine: {reason}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    # Torch's threads have aborted interpreters that were done.
    os._exit(1 if reason else 0)


if __name__ == "__main__":
    main()
