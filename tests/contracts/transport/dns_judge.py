"""A name server for one process tree, and what OpenSSH and we make of names that it knows.

Run inside mount and network namespaces of its own; see test_canonical_names.py. Reads a list of
``[file, name]`` from standard input and writes the list of differences to standard output.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
from pathlib import Path

from tests.contracts.transport.openssh import differences, judged, read_by_us

ADDRESSES = {
    "web.lab.test": "192.0.2.1",
    "gpu.other.test": "192.0.2.2",
    "real.lab.test": "192.0.2.3",
    "deep.in.lab.test": "192.0.2.4",
}
ALIASES = {"alias.lab.test": "real.lab.test", "out.lab.test": "gpu.other.test"}
A, CNAME, NO_SUCH_NAME = 1, 5, 3


def encode(name: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def record(name: str, kind: int, data: bytes) -> bytes:
    return encode(name) + struct.pack(">HHIH", kind, 1, 60, len(data)) + data


def question(packet: bytes) -> tuple[str, int, bytes]:
    """The name, the type, and the question's bytes."""
    at, parts = 12, []
    while packet[at]:
        parts.append(packet[at + 1 : at + 1 + packet[at]].decode())
        at += packet[at] + 1
    (kind,) = struct.unpack(">H", packet[at + 1 : at + 3])
    return ".".join(parts).lower(), kind, packet[12 : at + 5]


def answer(packet: bytes) -> bytes:
    name, kind, asked = question(packet)
    records = []
    if name in ALIASES:
        records.append(record(name, CNAME, encode(ALIASES[name])))
    target = ALIASES.get(name, name)
    if target in ADDRESSES and kind == A:
        records.append(record(target, A, socket.inet_aton(ADDRESSES[target])))
    code = 0 if target in ADDRESSES else NO_SUCH_NAME
    counts = struct.pack(">HHHH", 1, len(records), 0, 0)
    return packet[:2] + struct.pack(">H", 0x8580 | code) + counts + asked + b"".join(records)


def serve(listener: socket.socket) -> None:
    while True:
        packet, address = listener.recvfrom(4096)
        listener.sendto(answer(packet), address)


def main() -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 53))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    found = []
    for file, name in json.load(sys.stdin):
        theirs, ours = judged(Path(file), [name])[name], read_by_us(Path(file), name)
        host = None if theirs is None else theirs["hostname"][0]
        found.append({"host": host, "differences": differences(theirs, ours)})
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
