"""The first code that runs on a node: puts the agent there if it is absent, then hands over to it.

Its text travels over standard input ahead of everything else (see ``package.py``), so it imports
nothing of this package, and it must compile on Python 3.6 in order to say that that is too old.
"""

import errno
import os
import sys

MINIMUM_PYTHON = (3, 8)
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


def refusal(nonce: str, error: Exception) -> bytes:
    """The line that takes the place of everything that would have followed."""
    text = str(error)
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        text = f"no space is left for {error.filename or 'the agent'} ({error.strerror})"
    return f"\n{nonce} refused {' '.join(text.split())}\n".encode(errors="replace")


def _locate(header: "dict[str, str]", say: "object", stream: "object") -> "tuple[str, str]":
    """The work directory and the agent's directory in it, unpacked if it was absent."""
    workdir = resolve_workdir(header["workdir"])
    node = os.path.join(workdir, "node")
    agents = os.path.join(node, "agents")
    private_directory(node)
    private_directory(agents)
    target = os.path.join(agents, header["digest"][:16])
    if os.path.isdir(target):
        if "glance" not in header:
            say("have")  # type: ignore[operator]
        return workdir, target
    say("need")  # type: ignore[operator]
    # With the package comes what unpacks it: most starts need neither.
    scope: "dict[str, object]" = {}
    size = int(stream.readline(32))  # type: ignore[attr-defined]
    exec(stream.read(size), scope)  # type: ignore[attr-defined]  # noqa: S102 - text of ours
    scope["receive"](stream, header["digest"], agents, target)  # type: ignore[operator]
    return workdir, target


def start() -> None:
    """Read the header line, find or unpack the agent, run it; or answer one question and end."""
    stream = sys.stdin.buffer
    # A literal of Python, from whom this text came: the json module costs as much as all else here.
    header = eval(stream.readline(65536).decode(), {"__builtins__": {}})  # noqa: S307
    nonce = header["nonce"]

    def say(status: str) -> None:
        os.write(1, f"\n{nonce} {status}\n".encode())

    if sys.version_info[:2] < MINIMUM_PYTHON:
        say(f"refused python3 on this node is {sys.version.split()[0]}; the agent needs 3.8")
        return
    try:
        workdir, agent = _locate(header, say, stream)
    except (OSError, UnsafeDirectory, ValueError, EOFError) as error:
        os.write(1, refusal(nonce, error))
        return
    sys.path.insert(0, agent)
    if "glance" in header:
        from orchestrator.edges.agent.node.glance import glance

        say("have")
        glance(os.path.join(workdir, "node"), header["glance"])
        return
    from orchestrator.edges.agent.node.main import serve

    serve(stream, nonce, workdir, agent)


if __name__ == "__main__":
    start()
