"""A ``Process`` whose streams are the pipes of a child of ours: the command, or what reaches it."""

from __future__ import annotations

import asyncio

from orchestrator.adapters.transport.streams import StreamedProcess


class SubprocessPipes(StreamedProcess, asyncio.SubprocessProtocol):
    """Input and flow control; what its output means and how it ends is the implementation's."""

    def __init__(self) -> None:
        super().__init__()
        self._transport: asyncio.SubprocessTransport | None = None
        self._paused: set[int] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def _pipe(self, fd: int) -> asyncio.BaseTransport | None:
        return self._transport.get_pipe_transport(fd) if self._transport else None

    def _send(self, data: bytes) -> None:
        pipe = self._pipe(0)
        if not isinstance(pipe, asyncio.WriteTransport) or pipe.is_closing():
            raise BrokenPipeError
        pipe.write(data)

    def _send_eof(self) -> None:
        pipe = self._pipe(0)
        if pipe:
            pipe.close()

    def _adjust_flow(self) -> None:
        for fd, stream in {1: self.stdout, 2: self.stderr}.items():
            pipe = self._pipe(fd)
            if not isinstance(pipe, asyncio.ReadTransport):
                continue
            full = stream.full and not self._killed
            if full and fd not in self._paused:
                self._paused.add(fd)
                pipe.pause_reading()
            elif not full and fd in self._paused:
                self._paused.discard(fd)
                pipe.resume_reading()
