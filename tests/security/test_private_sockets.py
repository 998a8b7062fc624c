"""Sockets between processes of one user: nobody else gets in, nobody else is taken for us."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from orchestrator.adapters.private_sockets import (
    NotOurs,
    connect_privately,
    listen_privately,
    lock_exclusively,
    require_own_peer,
)
from tests.time_limits import scaled

pytestmark = pytest.mark.processes
NOBODY = pwd.getpwnam("nobody").pw_uid
LISTENS = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("listens", flush=True)
sys.stdin.read()
"""
CONNECTS = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
print("connected", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path that only this user can enter."""
    with TemporaryDirectory(prefix="or-", dir="/tmp") as name:
        yield Path(name)


def as_nobody(program: str, path: Path) -> subprocess.Popen[str]:
    """The program as another user, once it has said that it is there."""
    process = subprocess.Popen(
        ["python3", "-I", "-c", program, str(path)],
        user="nobody",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=scaled(15))


def test_a_user_reaches_what_listens_for_it(folder: Path) -> None:
    """A socket that was left behind is replaced."""
    path = folder / "s"
    listen_privately(path).close()
    with (
        listen_privately(path) as listener,
        connect_privately(path, scaled(5)) as client,
        listener.accept()[0] as server,
    ):
        require_own_peer(server)
        server.sendall(b"hello")
        assert client.recv(5) == b"hello"


def test_a_folder_that_others_may_enter_is_not_used(folder: Path) -> None:
    """Neither to listen in, nor to look for a listener."""
    path = folder / "s"
    with listen_privately(path):
        folder.chmod(0o710)
        for attempt in (lambda: listen_privately(path), lambda: connect_privately(path, scaled(5))):
            with pytest.raises(NotOurs, match="only you can enter"):
                attempt()


def test_another_user_behind_the_socket_is_noticed(folder: Path) -> None:
    """By the socket's owner; where that is feigned, by whom the kernel says that it is."""
    path = folder / "s"
    folder.chmod(0o777)
    other = as_nobody(LISTENS, path)
    folder.chmod(0o700)
    try:
        with pytest.raises(NotOurs, match="not a socket of yours"):
            connect_privately(path, scaled(5))
        os.chown(path, os.geteuid(), -1)
        with pytest.raises(NotOurs, match=f"user id {NOBODY}"):
            connect_privately(path, scaled(5))
    finally:
        end(other)


def test_another_user_who_got_in_is_noticed(folder: Path) -> None:
    """Whatever has become of the modes meanwhile."""
    path = folder / "s"
    with listen_privately(path) as listener:
        folder.chmod(0o711)
        path.chmod(0o666)
        other = as_nobody(CONNECTS, path)
        try:
            with listener.accept()[0] as server, pytest.raises(NotOurs, match=f"{NOBODY}"):
                require_own_peer(server)
        finally:
            end(other)


def test_nobody_listens_behind_a_stale_socket(folder: Path) -> None:
    """That is an error of the connection, as without a socket."""
    path = folder / "s"
    listen_privately(path).close()
    with pytest.raises(ConnectionRefusedError):
        connect_privately(path, scaled(5))
    with pytest.raises(FileNotFoundError):
        connect_privately(folder / "none", scaled(5))


def test_one_process_holds_a_lock(folder: Path) -> None:
    """And whoever inherited its descriptor, until the last of them is gone."""
    lock = lock_exclusively(folder / "l")
    assert lock is not None
    assert lock_exclusively(folder / "l") is None
    inherited = os.dup(lock)
    os.close(lock)
    assert lock_exclusively(folder / "l") is None
    os.close(inherited)
    again = lock_exclusively(folder / "l")
    assert again is not None
    os.close(again)
    (folder / "link").symlink_to(folder / "l")
    with pytest.raises(OSError, match="symbolic"):
        lock_exclusively(folder / "link")


def test_a_socket_is_for_sockets_only(folder: Path) -> None:
    """A file in its place is nobody's."""
    (folder / "s").write_text("")
    with pytest.raises(NotOurs):
        connect_privately(folder / "s", scaled(5))
