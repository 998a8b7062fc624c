"""What a client and the keeper of its command say to each other: packets of a Unix socket.

Client: the request with its descriptors, then ``GO``, then the number of each signal that came, a
byte each. Keeper: ``READY``, then what becomes of the command. Imports nothing, for the client.
"""

from __future__ import annotations

import sys

VERSION = b"warm process 1"
GO = b"\0"
READY = b"ready"
# The start of what the keeper says of the command, with a number: its process id, the signal that
# stopped it, and how it ended, as ``waitpid`` counts it; or that it could not begin.
STARTED, STOPPED, ENDED, REFUSED = b"p", b"t", b"e", b"n"
MAX_BYTES = 1 << 18  # of a packet; Linux sends no larger one unless it is told to
MAX_DESCRIPTORS = 64  # Linux passes up to 253 at once
_INT_BYTES = 4


def pack_request(
    likeness: bytes,
    signals: tuple[int, int],
    descriptors: list[int],
    argv: list[bytes],
    environ: dict[bytes, bytes],
) -> bytes:
    """The command as one packet: what the client is (``likeness``), the ``signals`` that it ignores
    and those that it blocks (as masks), the numbers of its descriptors, its words, and its
    environment. No part can hold a NUL.

    With it come the descriptors in that order, and the working directory.
    """
    numbers = b" ".join(b"%d" % number for number in descriptors)
    head = (likeness, b"%x %x" % signals, numbers, b"%d" % len(argv))
    return b"\0".join((VERSION, *head, *argv, *(b"%s=%s" % item for item in environ.items())))


def pack_descriptors(numbers: list[int]) -> bytes:
    """As the kernel takes them."""
    return b"".join(number.to_bytes(_INT_BYTES, sys.byteorder) for number in numbers)
