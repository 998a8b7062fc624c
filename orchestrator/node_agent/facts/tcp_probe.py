"""Can nodes reach each other by TCP? One listens on a free port, the others dial it."""

from __future__ import annotations

import socket
import threading
import time

from orchestrator.node_agent.base.agent_errors import ABSENT, BAD_REQUEST, BUSY, AgentFault
from orchestrator.node_agent.base.wire import read_field, read_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MAX_LISTENERS = 64
MAX_TARGETS = 1024
PARALLEL_DIALS = 64
PATIENCE_S = 1.0


class Listener:
    """Accepts, and waits for the dialler to close. The kernel completes handshakes meanwhile."""

    def __init__(self) -> None:
        self._socket = _bind()
        self._socket.listen(128)
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                _await_end(connection)

    def close(self) -> None:
        # A thread inside accept() keeps the port; shutdown wakes it.
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        finally:
            self._socket.close()


def _await_end(connection: socket.socket) -> None:
    """Let the dialler close first: whoever does keeps the port busy for a minute (TIME_WAIT)."""
    try:
        connection.settimeout(PATIENCE_S)
        connection.recv(1)
    except OSError:
        return


def _bind() -> socket.socket:
    """All addresses of both families where IPv6 is there, else of IPv4."""
    try:
        both = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    except OSError:
        both = None
    if both:
        try:
            both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            _let_others_follow(both)
            both.bind(("::", 0))
            return both
        except OSError:
            both.close()
    four = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    _let_others_follow(four)
    four.bind(("0.0.0.0", 0))  # noqa: S104 - other nodes are to reach it; it reads nothing
    return four


def _let_others_follow(listener: socket.socket) -> None:
    # Dialled connections linger in TIME_WAIT. The rendezvous store binds this port right after us,
    # and Linux lets it only if both sockets, the lingering and the new one, have the option.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def open_listener(listeners: dict[int, Listener]) -> dict[str, Any]:
    if len(listeners) >= MAX_LISTENERS:
        raise AgentFault(BUSY, f"{MAX_LISTENERS} ports are listened on already")
    listener = Listener()
    listeners[listener.port] = listener
    return {"port": listener.port}


def close_listener(listeners: dict[int, Listener], port: int) -> dict[str, Any]:
    listener = listeners.pop(port, None)
    if listener is None:
        raise AgentFault(ABSENT, f"port {port} is not listened on by this agent")
    listener.close()
    return {}


def dial_targets(request: Mapping[str, Any]) -> dict[str, Any]:
    """Try every target within ``timeout_s``; results in the order of the targets."""
    targets = read_field(request, "targets", list)
    timeout_s = read_seconds(request, "timeout_s", 0.01, 60.0)
    if len(targets) > MAX_TARGETS or not all(map(_is_target, targets)):
        raise AgentFault(BAD_REQUEST, "'targets' is not a list of [host, port]")
    results: list[dict[str, Any]] = [{} for _ in targets]
    order = iter(range(len(targets)))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                index = next(order, None)
            if index is None:
                return
            host, port = targets[index]
            results[index] = _dial_one(host, port, timeout_s)

    workers = [threading.Thread(target=work) for _ in range(min(PARALLEL_DIALS, len(targets)))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {"results": results}


def _is_target(target: object) -> bool:
    if not isinstance(target, list) or len(target) != 2:
        return False
    host, port = target
    return isinstance(host, str) and 0 < len(host) < 256 and type(port) is int and 0 < port < 65536


def _dial_one(host: str, port: int, timeout_s: float) -> dict[str, Any]:
    began = time.monotonic()
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            local = connection.getsockname()[0]
    except (OSError, UnicodeError) as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return {"ok": False, "error": text}
    return {"ok": True, "ms": round((time.monotonic() - began) * 1000, 3), "local": local}
