"""A webhook and a mail server on this machine, which do what a test asks of them."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Webhook:
    """``answers``: status codes in turn, then the last. ``stalled``: none before ``release``."""

    def __init__(self, answers: list[int], location: str = "", stalled: bool = False) -> None:
        self.answers, self.location = answers, location
        self.release = threading.Event()
        if not stalled:
            self.release.set()
        self.bodies: list[bytes] = []
        self.url = ""


@contextmanager
def webhook(answers: list[int], location: str = "", stalled: bool = False) -> Iterator[Webhook]:
    hook = Webhook(answers, location, stalled)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hook.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            hook.release.wait(30)
            status = hook.answers.pop(0) if len(hook.answers) > 1 else hook.answers[0]
            self.send_response(status)
            if hook.location:
                self.send_header("Location", hook.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - what a redirect would become

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with _serving(server):
        hook.url = f"http://127.0.0.1:{server.server_port}"
        yield hook
        hook.release.set()


@contextmanager
def trickling_server() -> Iterator[str]:
    """The URL of a server whose answer never ends, a byte at a time; to ``/garbage``: no HTTP."""
    over = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            if b"/garbage" in self.rfile.readline():
                self.wfile.write(b"220 this is no web server\r\n")
                return
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
            with suppress(OSError):
                while not over.wait(0.02):
                    self.wfile.write(b"x")

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with _serving(server):
        yield f"http://127.0.0.1:{server.server_address[1]}"
        over.set()


class Mailbox:
    """What a mail server was told."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.message = ""
        self.port = 0


@contextmanager
def mail_server(refuse: str = "") -> Iterator[Mailbox]:
    """Speaks enough SMTP for one message. ``refuse``: the command that it answers with 550."""
    box = Mailbox()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._answer("220 here")
            while line := self.rfile.readline():
                command = line.decode().strip()
                box.commands.append(command)
                verb = command.split(" ")[0].upper()
                if refuse and verb == refuse:
                    self._answer("550 no")
                elif verb == "EHLO":
                    self._answer("250-here\r\n250 AUTH PLAIN")
                elif verb == "AUTH":
                    self._answer("235 ok")
                elif verb == "DATA":
                    self._answer("354 go")
                    box.message = self._message()
                    self._answer("250 kept")
                elif verb == "QUIT":
                    self._answer("221 bye")
                    return
                else:
                    self._answer("250 ok")

        def _answer(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

        def _message(self) -> str:
            lines = []
            while (line := self.rfile.readline()) not in (b".\r\n", b""):
                lines.append(line.decode())
            return "".join(lines)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with _serving(server):
        box.port = server.server_address[1]
        yield box


@contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
