"""Unpacks the agent on a node that lacks it. Travels as text ahead of the package, and imports
nothing of this package.
"""

import hashlib
import io
import os
import re
import shutil
import zipfile

MAX_PACKAGE_BYTES = 8 * 1024 * 1024


def receive(stream: "object", digest: str, agents: str, target: str) -> None:
    """Read the package from ``stream`` and put it at ``target``. Raises ``ValueError``,
    ``EOFError``, ``OSError``.
    """
    size = int(stream.readline(32))  # type: ignore[attr-defined]
    if not 0 < size <= MAX_PACKAGE_BYTES:
        raise ValueError(f"unreasonable package size {size}")
    _unpack(_read_exactly(stream, size), digest, agents, target)


def _read_exactly(stream: "object", size: int) -> bytes:
    data = stream.read(size)  # type: ignore[attr-defined]
    if len(data) != size:
        raise EOFError("the input ended early")
    return bytes(data)


def _unpack(data: bytes, digest: str, agents: str, target: str) -> None:
    """Files first, then one rename: a directory under its final name is complete."""
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError("the agent's package arrived damaged")
    staging = os.path.join(agents, f".{os.getpid()}-{os.urandom(6).hex()}")
    os.mkdir(staging, 0o700)
    paths = []
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        for name in archive.namelist():
            if not re.match(r"([a-z_]+/)*[a-z_]+\.py\Z", name):
                raise ValueError(f"unexpected file in the agent's package: {name!r}")
            paths.append(os.path.join(staging, name))
            os.makedirs(os.path.dirname(paths[-1]), 0o700, exist_ok=True)
            with open(paths[-1], "xb") as file:
                file.write(archive.read(name))
        for path in paths:  # all are written first: one commit of the file system serves many
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        os.rename(staging, target)
    except OSError:
        if not os.path.isdir(target):  # another starter may have been faster
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
