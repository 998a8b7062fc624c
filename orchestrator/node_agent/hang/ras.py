"""NCCL's own view of a job (RAS, since NCCL 2.24): a text that any of its processes gives out."""

from __future__ import annotations

import re
import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

ADDRESS = "localhost:28028"
MAX_PORT_DIGITS = 5
CONNECT_S = 1.0
ANSWER_S = 6.0
MAX_BYTES = 256 * 1024
PLACE = re.compile(
    r"Rank \d+ has launched up to operation (\d+) -- GPU \S+ managed by process (\d+) on node (\S+)"
)
KIND = re.compile(r"ranks have different (\w+) operation counts")
COMMUNICATOR = re.compile(r"#\d+-\d+ \(([0-9a-f]+)\)")


def ask_ras(address: str) -> str:
    """The verbose status, or "" when nobody answers there, or somebody else."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or len(port) > MAX_PORT_DIGITS:
        return ""
    deadline = time.monotonic() + ANSWER_S
    data = b""
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_S) as connection:
            connection.sendall(b"verbose status\n")
            while len(data) < MAX_BYTES:
                connection.settimeout(max(0.01, deadline - time.monotonic()))
                chunk = connection.recv(65536)
                if not chunk:
                    break
                data += chunk
    except OSError:  # a time-out leaves what came before it
        pass
    text = data[:MAX_BYTES].decode(errors="replace")
    return text if text.startswith("NCCL version") else ""


def parse_places(
    text: str, pids: Collection[int], addresses: Collection[str]
) -> dict[int, dict[str, object]]:
    """pid -> how far that process came, where NCCL saw its ranks disagree.

    The answer is about all nodes; ``addresses`` are those of this one.
    """
    found: dict[int, dict[str, object]] = {}
    communicator = kind = ""
    for line in text.splitlines():
        start = COMMUNICATOR.match(line)
        communicator = start.group(1) if start else communicator
        about = KIND.search(line)
        kind = about.group(1) if about else kind
        place = PLACE.search(line)
        if place and int(place.group(2)) in pids and place.group(3) in addresses:
            number = min(int(place.group(1)), 1 << 53)
            found[int(place.group(2))] = {
                "group": f"communicator {communicator} ({kind})"[:64],
                "entered": number,
                "completed": number,
                "operation": kind[:64],
                "members": [],
            }
    return found
