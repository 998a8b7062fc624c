"""The start of the agent on a node that lacks it, or where its place looks odd: the careful part.

Its text travels over standard input ahead of the package (see ``stage0.py`` and ``package.py``), so
it imports nothing of this package, and it must compile on Python 3.6 in order to say that that is
too old.
"""

import errno
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, NoReturn

MINIMUM_PYTHON = (3, 8)
MAX_PACKAGE_BYTES = 8 * 1024 * 1024
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
WORLD_WRITABLE, STICKY, OTHERS = 0o002, 0o1000, 0o077
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class UnsafeDirectory(Exception):
    """Somebody else could read or replace what we would keep in this directory."""


def private_directory(path: str) -> None:
    """Create ``path`` with mode 0700, or check that it is a directory of ours and make it 0700."""
    if not os.path.lexists(path):
        os.makedirs(path, 0o700, exist_ok=True)
    try:
        fd = os.open(path, DIRECTORY_FLAGS)
    except OSError as error:
        raise UnsafeDirectory(f"{path} is not a plain directory ({error.strerror})") from error
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid():
            raise UnsafeDirectory(f"{path} belongs to user id {status.st_uid}")
        if status.st_mode & OTHERS:
            os.fchmod(fd, 0o700)
    finally:
        os.close(fd)


def resolve_workdir(text: str) -> str:
    """The absolute path of the work directory, created if absent; ``~`` is the user's home.

    A link is followed if it is the user's own or root's. Raises :class:`UnsafeDirectory` if another
    user owns the directory or may replace a directory on the way to it.
    """
    path = os.path.abspath(os.path.join(os.path.expanduser("~"), os.path.expanduser(text)))
    trusted = (0, os.geteuid())
    if os.path.islink(path) and os.lstat(path).st_uid not in trusted:
        raise UnsafeDirectory(f"{path} is another user's link")
    path = os.path.realpath(path)
    os.makedirs(path, 0o700, exist_ok=True)
    if os.lstat(path).st_uid not in trusted:
        raise UnsafeDirectory(f"{path} belongs to user id {os.lstat(path).st_uid}")
    above = path
    while above != "/":
        mode = os.lstat(above).st_mode
        if mode & WORLD_WRITABLE and not mode & STICKY:
            raise UnsafeDirectory(f"{above} is writable by everybody")
        above = os.path.dirname(above)
    return path


def refusal_line(nonce: str, error: Exception) -> bytes:
    """The line that takes the place of everything that would have followed."""
    text = str(error)
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        text = f"no space is left for {error.filename or 'the agent'} ({error.strerror})"
    elif isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror}"
    return f"\n{nonce} refused {' '.join(text.split())}\n".encode(errors="replace")


def unpack_agent(
    stream: "object", header: "dict[str, str]", mark: "Callable[[str], str]"
) -> "tuple[str, str]":
    """The work directory and the agent's directory in it, unpacked, or compared with the package.
    Where that cannot be, says why and ends. ``mark``: see ``stage0.whole_mark``.
    """
    nonce = header["nonce"]
    if sys.version_info[:2] < MINIMUM_PYTHON:
        found = sys.version.split()[0]
        text = f"python3 on this node is {found}; the agent needs 3.8"
        _end(f"\n{nonce} refused {text}\n".encode())
    try:
        workdir = resolve_workdir(header["workdir"])
        node = os.path.join(workdir, "node")
        agents = os.path.join(node, "agents")
        private_directory(node)
        private_directory(agents)
        target = os.path.join(agents, header["digest"][:16])
        if os.path.isdir(target):
            private_directory(target)
        unpack_package(_receive(stream), header["digest"], target, mark(target))
    except (OSError, UnsafeDirectory, ValueError, EOFError) as error:
        _end(refusal_line(nonce, error))
    return workdir, target


def _end(words: bytes) -> "NoReturn":
    os.write(1, words)
    os._exit(0)


def _receive(stream: "object") -> bytes:
    size = int(stream.readline(32))  # type: ignore[attr-defined]
    if not 0 < size <= MAX_PACKAGE_BYTES:
        raise ValueError(f"unreasonable package size {size}")
    data = stream.read(size)  # type: ignore[attr-defined]
    if len(data) != size:
        raise EOFError("the input ended early")
    return bytes(data)


def unpack_package(data: bytes, digest: str, target: str, mark: str) -> None:
    """Files first, then one rename, then the ``mark``: a directory under its final name was
    complete, and one with the mark of this boot is.

    Nothing waits for the disk: 100 files would take seconds on a busy one. Where the kernel does
    not tell one boot from another, it has to. Raises ``ValueError`` for a package that is not
    ``digest``'s, or has other files.
    """
    files = _files_of(data, digest)
    if os.path.isdir(target):
        _repair(target, files)
    else:
        _unpack(target, files)
    if mark.endswith("-none"):
        os.sync()
    os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def _files_of(data: bytes, digest: str) -> "dict[str, bytes]":
    import hashlib
    import io
    import re
    import zipfile

    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError("the agent's package arrived damaged")
    archive = zipfile.ZipFile(io.BytesIO(data))
    for name in archive.namelist():
        if not re.match(r"([a-z0-9_]+/)*[a-z0-9_]+\.py\Z", name):
            raise ValueError(f"unexpected file in the agent's package: {name!r}")
    return {name: archive.read(name) for name in archive.namelist()}


def _unpack(target: str, files: "dict[str, bytes]") -> None:
    import shutil

    staging = _staging_name(target)
    os.mkdir(staging, 0o700)
    try:
        for name, content in files.items():
            _write_new(os.path.join(staging, name), content)
        os.rename(staging, target)
    except OSError:
        if not os.path.isdir(target):  # another starter may have been faster
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _repair(target: str, files: "dict[str, bytes]") -> None:
    """Replace what is not as it was: others may be reading these files."""
    for name, content in files.items():
        path = os.path.join(target, name)
        try:
            with open(path, "rb") as file:
                if file.read(len(content) + 1) == content:
                    continue
        except FileNotFoundError:
            pass
        staging = _staging_name(target)
        try:
            _write_new(staging, content)
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            os.rename(staging, path)
        except OSError:
            if os.path.lexists(staging):
                os.unlink(staging)
            raise


def _staging_name(target: str) -> str:
    return os.path.join(os.path.dirname(target), f".{os.getpid()}-{os.urandom(6).hex()}")


def _write_new(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    with open(path, "xb") as file:
        file.write(content)
