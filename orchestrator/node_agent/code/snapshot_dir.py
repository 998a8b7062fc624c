"""The folder of one snapshot: filled file by file, checked file by file, never edited.

Every finished file is *sealed*: not writable, and its modification time is a constant. A file that
was cut off while it was written, or edited in place afterwards, is not sealed any more, which one
``lstat`` tells. So no journal of what arrived is needed, and no file is synced to disk by itself:
see ``snapshot.py`` for what guards against a power cut.

Snapshots have files in common by hard links: 50,000 of them take half a second and no space, where
copies would take many times both. Nobody edits them: they are read-only, and code that may write
beside itself, a user's project, runs in a copy of its own. Only root could write here all the same;
so what is not sealed any more is neither shared nor counted as present.
"""

from __future__ import annotations

import errno
import os
import stat

from orchestrator.node_agent.base.agent_errors import DAMAGED, AgentFault
from orchestrator.node_agent.base.digests import blake2b
from orchestrator.node_agent.code.complete_snapshots import RESERVED
from orchestrator.node_agent.code.node_manifest import DIGEST_BYTES, digest_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.node_agent.code.node_manifest import NodeManifest

# 2000-01-01: a time that a file edited now cannot have, and that zip archives can express.
SEAL_NS = 946_684_800 * 10**9
BUFFER_BYTES = 1024 * 1024
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Tree:
    """``manifest``'s files below ``root``. Every method may be repeated after a crash."""

    def __init__(self, root: str, manifest: NodeManifest) -> None:
        self.root = root
        self.manifest = manifest
        self._prefix = root + "/"

    def prepare(self) -> None:
        """Make the folders and links. Raises :class:`AgentFault` if something else is there."""
        for folder in self.manifest.folders:
            path = self._prefix + folder
            try:
                os.mkdir(path, 0o755)
            except FileExistsError:
                self._check_folder(path)
        for name, target in self.manifest.links.items():
            path = self._prefix + name
            try:
                if os.readlink(path) == target:
                    continue
                os.unlink(path)
            except FileNotFoundError:
                pass
            os.symlink(target, path)

    def _check_folder(self, path: str) -> None:
        """A folder, or a link to one that is shared; what that was shared with may be gone."""
        if stat.S_ISDIR(os.lstat(path).st_mode):
            return
        if not is_shared(path, os.path.dirname(self.root)):
            raise AgentFault(DAMAGED, f"{path} is no folder; remove {self.root}")
        if not os.path.isdir(path):
            os.unlink(path)
            os.mkdir(path, 0o755)

    def missing(self, read: bool = False) -> set[int]:
        """The indices of the contents to be sent. What is not sealed is removed; with ``read``,
        also what does not have its digest."""
        absent = set()
        for index, (digest, size, paths) in enumerate(self.manifest.blobs):
            for path in paths:
                full = self._prefix + path
                executable = self.manifest.files[path][1]
                if not _is_sound(full, size, executable, digest if read else ""):
                    absent.add(index)
        return absent

    def adopt(self, root: str, available: Mapping[tuple[str, bool], str]) -> None:
        """Take what the snapshot at ``root`` has: (digest, executable) -> path. Afterwards
        :meth:`missing` drops what is not sealed there any more."""
        for path, (size, executable, digest) in self.manifest.files.items():
            source = available.get((digest, executable))
            if source is not None and not _link(root + "/" + source, self._prefix + path):
                _copy(root + "/" + source, self._prefix + path, size, executable)

    def write(self, index: int, data: bytes) -> None:
        """A whole content, to all its paths. One that does not have its digest stays missing."""
        digest, size, paths = self.manifest.blobs[index]
        if len(data) == size and digest_of(data) == digest:
            for path in paths:
                _create(self._prefix + path, data, self.manifest.files[path][1])

    def append(self, index: int, offset: int, data: bytes) -> None:
        """A piece of a large content. Pieces come in order; the last one makes it a file. Whoever
        sends what another has sent writes the same bytes, and undoes nothing.
        """
        digest, size, paths = self.manifest.blobs[index]
        staging = os.path.join(self.root, RESERVED, f"content-{index}")
        fd = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(fd).st_size < offset:
                return
            os.lseek(fd, offset, os.SEEK_SET)
            _write(fd, data)
        finally:
            os.close(fd)
        if offset + len(data) < size:
            return
        if digest_of_file(staging) == digest:
            _seal(staging, self.manifest.files[paths[0]][1])
            os.rename(staging, self._prefix + paths[0])
            for path in paths[1:]:
                self._repeat(self._prefix + paths[0], path)
        else:
            os.unlink(staging)

    def _repeat(self, source: str, path: str) -> None:
        size, executable, _ = self.manifest.files[path]
        fd = os.open(source, _READ)
        try:
            _fill(fd, self._prefix + path, size, executable)
        finally:
            os.close(fd)


def digest_of_file(path: str) -> str:
    """The digest of a regular file; ``""`` if there is none."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    try:
        fd = os.open(path, _READ)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return ""
        raise
    try:
        while True:
            data = os.read(fd, BUFFER_BYTES)
            if not data:
                return digest.hexdigest()
            digest.update(data)
    finally:
        os.close(fd)


def is_shared(path: str, snapshots: str) -> bool:
    """Whether this is a link to a folder below ``snapshots``: links of the user's are relative."""
    if not os.path.islink(path):
        return False
    target = os.readlink(path)
    return target.startswith(snapshots + "/") and os.path.normpath(target) == target


def link_or_copy(source: str, target: str) -> None:
    """Make ``target`` the sealed file at ``source``. Raises ``OSError``."""
    if not _link(source, target):
        status = os.lstat(source)
        _copy(source, target, status.st_size, bool(status.st_mode & stat.S_IXUSR))
        os.lstat(target)  # it is not there if the source is not sealed any more


def is_sealed(status: os.stat_result, size: int, executable: bool) -> bool:
    """Whether this is a finished and unedited regular file."""
    return (
        status.st_mtime_ns == SEAL_NS
        and status.st_size == size
        and stat.S_IFMT(status.st_mode) == stat.S_IFREG
        and status.st_mode & 0o700 == (0o500 if executable else 0o400)
    )


def _is_sound(path: str, size: int, executable: bool, digest: str) -> bool:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    sound = is_sealed(status, size, executable)
    if sound and (not digest or digest_of_file(path) == digest):
        return True
    os.unlink(path)
    return False


def _create(path: str, data: bytes, executable: bool) -> None:
    fd = _open_new(path, len(data), executable)
    if fd >= 0:
        try:
            _write(fd, data)
            os.utime(fd, ns=(SEAL_NS, SEAL_NS))
        finally:
            os.close(fd)


def _open_new(path: str, size: int, executable: bool) -> int:
    """A descriptor of the new file; -1 if it is there and sealed. An unfinished one is replaced."""
    mode = 0o555 if executable else 0o444
    try:
        return os.open(path, _CREATE, mode)
    except FileExistsError:
        if is_sealed(os.lstat(path), size, executable):
            return -1
    os.unlink(path)
    return os.open(path, _CREATE, mode)


def _link(source: str, target: str) -> bool:
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        return True
    except OSError:  # too many links, or a file system without them
        return False
    return True


def _copy(source: str, target: str, size: int, executable: bool) -> None:
    try:
        fd = os.open(source, _READ)
    except OSError:  # gone since: then it is missing
        return
    try:
        if is_sealed(os.fstat(fd), size, executable):
            _fill(fd, target, size, executable)
    finally:
        os.close(fd)


def _fill(source: int, path: str, size: int, executable: bool) -> None:
    fd = _open_new(path, size, executable)
    if fd < 0:
        return
    try:
        left = size
        while left:
            data = os.read(source, min(left, BUFFER_BYTES))
            if not data:
                return
            _write(fd, data)
            left -= len(data)
        os.utime(fd, ns=(SEAL_NS, SEAL_NS))
    finally:
        os.close(fd)


def _seal(path: str, executable: bool) -> None:
    os.chmod(path, 0o555 if executable else 0o444)
    os.utime(path, ns=(SEAL_NS, SEAL_NS))


def _write(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, data[written:])
