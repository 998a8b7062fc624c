"""Where everything lies on a node. No other module puts these paths together.

<workdir>/node/                      0700, ours, not a link
  agents/<digest16>/                 unpacked agents
  snapshots/<digest>/                code trees, complete or absent
  environments/<digest>/             Python environments, ready when the marker exists
  images/<key>                       what was found of images of containers
  locks/<name>                       flock files
  runs/<run>/<node>/                 one inventory node's share of a run
    epoch  lock  checkpoints/
    attempt-<n>/
      supervisor.json supervisor.log events.jsonl lease stop cgroup gpus.json
      logs/ ranks/ report/ output/ work/ torchrun/
      exchange/exchange-<rank>.jsonl  exchange/in/rank-<rank>/  exchange/out/

/tmp/or-<digest>/                    an attempt's scratch, if it has one, while it runs
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from contextlib import contextmanager, suppress

from orchestrator.node_agent.base.agent_errors import (
    BAD_REQUEST,
    BUSY,
    UNSAFE,
    AgentFault,
    shorten_value,
)
from orchestrator.node_agent.base.bootstrap import (
    NO_SPACE,
    UnsafeDirectory,
    private_directory,
    resolve_workdir,
)
from orchestrator.node_agent.base.digests import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from re import Pattern

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
DIGEST = re.compile(r"[0-9a-f]{16,64}\Z")
STREAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.(out|err|jsonl)\Z")
MAX_ATTEMPT = 10_000
LOCK_POLL_S = 0.02
SHORT = "/tmp"  # noqa: S108 - what is made there is 0700, and made by mkdir
TRASH = ".trash-"  # how the names begin of what is being deleted
# Records that must be written on a full disk, too, are padded to this with spaces.
ROOM_BYTES = 256
# The directory that this agent was unpacked in, as the bootstrap put it on the module path.
AGENT = os.path.abspath(__file__).rsplit(os.sep, 4)[0]
NODE_CODE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# What runs under the interpreter of the ranks, which has torch; nothing here imports it.
RANK_ENV = os.path.join(NODE_CODE, "rank_env")


def check_name(value: object, what: str, pattern: Pattern[str] = NAME) -> str:
    """``value`` if it is a safe single path component of its kind."""
    if not isinstance(value, str) or not pattern.match(value):
        raise AgentFault(BAD_REQUEST, f"not a valid {what}: {shorten_value(value)}")
    return value


class AttemptLayout:
    """The directory of one attempt of one inventory node."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.supervisor = os.path.join(root, "supervisor.json")
        self.supervisor_log = os.path.join(root, "supervisor.log")
        self.events = os.path.join(root, "events.jsonl")
        self.lease = os.path.join(root, "lease")
        self.stop = os.path.join(root, "stop")
        self.cgroup = os.path.join(root, "cgroup")
        self.gpus = os.path.join(root, "gpus.json")
        self.facts = os.path.join(root, "facts.json")
        self.logs = os.path.join(root, "logs")
        self.ranks = os.path.join(root, "ranks")
        self.report = os.path.join(root, "report")
        self.output = os.path.join(root, "output")
        self.exchange = os.path.join(root, "exchange")
        self.offered = os.path.join(self.exchange, "out")
        self.work = os.path.join(root, "work")
        # Sockets need short paths. The name is known without being written down: whoever ends the
        # attempt finds it.
        digest = sha256(os.fsencode(root)).hexdigest()[:12]
        self.scratch = os.path.join(SHORT, f"or-{digest}")

    def create(self) -> None:
        """Create what is absent; check what is there."""
        for path in (self.root, self.logs, self.ranks, self.report, self.output):
            private_folder(path)
        for path in (self.exchange, self.offered, os.path.join(self.exchange, "in")):
            private_folder(path)
        if not os.path.lexists(self.stop):  # blank until somebody asks: see write_atomically
            write_atomically(self.stop, b" " * ROOM_BYTES)

    def create_scratch(self) -> None:
        """Empty and ours alone."""
        self.remove_scratch()
        try:
            os.mkdir(self.scratch, 0o700)
        except OSError as error:
            raise AgentFault(UNSAFE, f"{self.scratch}: {error.strerror}") from error

    def remove_scratch(self) -> None:
        """If there is one, and it is ours."""
        try:
            status = os.lstat(self.scratch)
        except OSError:
            return
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
            import shutil

            shutil.rmtree(self.scratch, ignore_errors=True)

    def log(self, name: str) -> str:
        """``name`` like ``rank-0.out``."""
        return os.path.join(self.logs, check_name(name, "log name", STREAM))

    def inbox(self, rank: int) -> str:
        """Where ``rank`` finds what the coordinator gives to it."""
        return os.path.join(self.exchange, "in", f"rank-{rank}")


class RunLayout:
    """One inventory node's share of a run."""

    def __init__(self, above: str, root: str) -> None:
        self._above = above
        self.root = root
        self.epoch = os.path.join(root, "epoch")
        self.lock = os.path.join(root, "lock")
        self.checkpoints = os.path.join(root, "checkpoints")

    def create(self) -> None:
        """Create what is absent; check what is there."""
        for path in (self._above, self.root, self.checkpoints):
            private_folder(path)

    def attempt(self, number: object) -> AttemptLayout:
        """Attempts count from 0 or 1, as the coordinator likes."""
        if type(number) is not int or not 0 <= number <= MAX_ATTEMPT:
            raise AgentFault(BAD_REQUEST, f"not a valid attempt: {shorten_value(number)}")
        return AttemptLayout(os.path.join(self.root, f"attempt-{number}"))

    def attempts(self) -> list[int]:
        """The attempts that exist, in order."""
        names = _names(self.root)
        return sorted(
            int(name[8:]) for name in names if re.match(r"attempt-(0|[1-9]\d{0,4})\Z", name)
        )


class NodeLayout:
    """``<workdir>/node`` and the names below it. Use :meth:`open` unless it is known to be safe."""

    def __init__(self, workdir: str) -> None:
        self.workdir = workdir
        self.root = os.path.join(workdir, "node")
        self.agents = os.path.join(self.root, "agents")
        self.snapshots = os.path.join(self.root, "snapshots")
        self.environments = os.path.join(self.root, "environments")
        self.images = os.path.join(self.root, "images")
        self.locks = os.path.join(self.root, "locks")
        self.runs = os.path.join(self.root, "runs")

    @classmethod
    def open(cls, workdir: str) -> NodeLayout:
        """Create the directories, or check that they are ours. Raises :class:`AgentFault`."""
        try:
            layout = cls(resolve_workdir(workdir))
        except UnsafeDirectory as error:
            raise AgentFault(UNSAFE, str(error)) from error
        layout.create()
        return layout

    def create(self) -> None:
        """Create the folders, or check that they are ours. Raises :class:`AgentFault`."""
        for path in (self.root, self.agents, self.snapshots):
            private_folder(path)
        for path in (self.environments, self.images, self.locks, self.runs):
            private_folder(path)

    def snapshot(self, digest: object) -> str:
        return os.path.join(self.snapshots, check_name(digest, "digest", DIGEST))

    def kit(self, digest: object) -> str:
        """The directory in a snapshot that ``import orchestrate_kit`` finds."""
        return os.path.join(self.snapshot(digest), ".orchestrate", "kit")

    def environment(self, digest: object) -> str:
        return os.path.join(self.environments, check_name(digest, "digest", DIGEST))

    def image(self, known_by: str) -> str:
        """Where is written what was found of the image that ``known_by`` describes."""
        return os.path.join(self.images, sha256(known_by.encode()).hexdigest()[:32])

    def run(self, run: object, node: object) -> RunLayout:
        above = os.path.join(self.runs, check_name(run, "run id"))
        return RunLayout(above, os.path.join(above, check_name(node, "node name")))

    def known_runs(self) -> list[tuple[str, str]]:
        """Every (run, node) that has a directory."""
        pairs = []
        for run in filter(NAME.match, _names(self.runs)):
            names = _names(os.path.join(self.runs, run))
            pairs += [(run, node) for node in filter(NAME.match, names)]
        return pairs

    def discard(self, path: str) -> None:
        """Out of sight by one rename, then deleted; what a crash leaves is found by its name."""
        import shutil

        trash = os.path.join(self.root, f"{TRASH}{os.getpid()}-{os.urandom(6).hex()}")
        os.rename(path, trash)
        shutil.rmtree(trash, ignore_errors=True)

    @contextmanager
    def locked(self, name: str, wait: bool = True, shared: bool = False) -> Iterator[None]:
        """Hold ``locks/<name>``; the kernel gives it back if we die. BUSY if not ``wait``."""
        path = os.path.join(self.locks, check_name(name, "lock name"))
        fd = lock_file(path, wait=wait, shared=shared)
        try:
            yield
        finally:
            os.close(fd)


def lock_file(path: str, wait: bool = True, shared: bool = False) -> int:
    """A descriptor that holds ``path`` by flock until it is closed."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(fd, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise AgentFault(BUSY, f"{os.path.basename(path)} is held by another process") from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def lock_soon(path: str, within_s: float) -> int:
    """The same, within ``within_s`` seconds. Raises BUSY."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return lock_file(path, wait=False)
        except AgentFault:
            if time.monotonic() >= deadline:
                raise
            time.sleep(LOCK_POLL_S)


def write_atomically(path: str, data: bytes) -> None:
    """``path`` appears complete or not at all, also after a power cut.

    On a full disk a record that is there already is written over in place, if ``data`` fits into
    it: whoever wrote it first left room (see :data:`ROOM_BYTES`).
    """
    staging = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(staging, flags, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(staging, path)
    except OSError as error:
        with suppress(FileNotFoundError):
            os.unlink(staging)
        if error.errno not in NO_SPACE or not _write_over(path, data):
            raise


def _write_over(path: str, data: bytes) -> bool:
    """One write, which takes no new space; False if there is no room for it."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        size = os.fstat(fd).st_size
        return len(data) <= size and os.pwrite(fd, data.ljust(size), 0) == size
    except OSError:
        return False
    finally:
        os.close(fd)


def private_folder(path: str) -> None:
    """Create the directory, or check that it is ours. Raises :class:`AgentFault`."""
    try:
        private_directory(path)
    except UnsafeDirectory as error:
        raise AgentFault(UNSAFE, str(error)) from error


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
