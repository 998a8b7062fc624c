"""What brokers hold, and how it is ended: ``orchestrate connections``."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.adapters.private_sockets import connect_privately, sockets_folder
from orchestrator.adapters.transport.broker.broker_messages import message, read_message
from orchestrator.adapters.transport.broker.find_broker import PREFIX
from orchestrator.adapters.transport.multiplex.multiplex_messages import MalformedMessage, Unframer

ANSWER_S = 2.0
RECEIVED_BYTES = 64 * 1024


class BrokerConnection(NamedTuple):
    """One that a broker holds: the words for ``ssh`` that lead there, since when (wall clock, in
    seconds), and whether a command uses it.
    """

    path: Path
    name: str
    words: str
    since: float
    in_use: bool


def broker_connections(environ: Mapping[str, str]) -> list[BrokerConnection]:
    """Those of all brokers that answer, also of other versions, oldest first. Raises
    ``UsageError`` if others could open the folder.
    """
    found = [
        BrokerConnection(path, each["name"], each["words"], each["since"], each["in_use"])
        for path, answer in _ask_all({"op": "list"}, environ)
        for each in answer.get("connections", ())
    ]
    return sorted(found, key=lambda each: each.since)


def close_broker_connections(names: Sequence[str] | None, environ: Mapping[str, str]) -> list[str]:
    """End those called so, or, for None, all that no command uses; one in use ends with its
    command. The names of those that have ended.
    """
    request = {"op": "close", "names": None if names is None else list(names)}
    answers = _ask_all(request, environ)
    return [name for _, answer in answers for name in answer.get("closed", ())]


def _ask_all(
    request: Mapping[str, Any], environ: Mapping[str, str]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(sockets_folder(environ).glob(f"{PREFIX}*")):
        if path.is_socket():
            try:
                with connect_privately(path, ANSWER_S) as connection:
                    yield path, _ask(connection, request)
            except (OSError, MalformedMessage):
                continue


def _ask(connection: socket.socket, request: Mapping[str, Any]) -> dict[str, Any]:
    """Raises ``OSError`` and ``MalformedMessage``."""
    connection.sendall(message(request))
    unframer = Unframer()
    while data := connection.recv(RECEIVED_BYTES):
        for each in unframer.feed(data):
            answer = read_message(each)
            if "state" not in answer:  # that it waits
                return answer
    raise ConnectionError("the broker ended")
