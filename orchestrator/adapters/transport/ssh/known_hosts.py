"""Which host keys are trusted: OpenSSH known_hosts files, indexed once, matched for each host.

Keys stay opaque blobs: an SSH library parses only those that belong to the host at hand, so that a
file with thousands of lines costs each connection next to nothing.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.base.errors import SourceLocation, UsageError
from orchestrator.parsing.ssh_config.patterns import matches_host

SSH_PORT = 22
KRL_MAGIC = b"SSHKRL\n\0"


@dataclass(frozen=True, slots=True)
class HostKey:
    """A public key as OpenSSH writes it: its type, its bytes, and the line it stands on."""

    kind: str
    blob: bytes
    place: SourceLocation

    @property
    def fingerprint(self) -> str:
        return key_fingerprint(self.blob)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What the files say about one host."""

    keys: tuple[HostKey, ...] = ()
    authorities: tuple[HostKey, ...] = ()
    revoked: tuple[HostKey, ...] = ()


@dataclass(frozen=True, slots=True)
class _KnownHost:
    marker: str
    hosts: str
    key: HostKey


@dataclass(frozen=True, slots=True)
class _Index:
    plain: dict[str, list[_KnownHost]]
    patterns: list[_KnownHost]


def key_fingerprint(blob: bytes) -> str:
    """``SHA256:...`` as ``ssh-keygen -l`` prints it."""
    digest = hashlib.sha256(blob).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def lookup_name(host: str, port: int) -> str:
    """The name under which OpenSSH files a host's key."""
    return host if port == SSH_PORT else f"[{host}]:{port}"


def trust_in(files: Sequence[str], names: Sequence[str]) -> Trust:
    """What ``files`` (missing ones count as empty) say about the first of ``names`` they know.

    Revoked keys are collected under all of the names.
    """
    entries = [
        [entry for file in files for entry in _matching_entries(_load_index(file), n)]
        for n in names
    ]
    known = next((found for found in entries if any(e.marker != "@revoked" for e in found)), [])
    return Trust(
        keys=_host_keys(known, ""),
        authorities=_host_keys(known, "@cert-authority"),
        revoked=_host_keys((entry for found in entries for entry in found), "@revoked"),
    )


def revoked_in(file: str) -> tuple[HostKey, ...]:
    """The keys of a file of ``RevokedHostKeys``: public keys, one a line.

    Raises :class:`UsageError` for a file that cannot be read, for ssh then trusts no host at all,
    and for a binary revocation list.
    """
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        why, remedy = error.strerror or str(error), "correct the file's name, or make it readable"
        raise _unusable_file(file, why, remedy) from error
    if data.startswith(KRL_MAGIC):
        remedy = "list the revoked public keys in a text file, one a line"
        raise _unusable_file(file, "it is a binary revocation list (KRL)", remedy)
    found = []
    for number, line in enumerate(data.decode(errors="surrogateescape").split("\n"), start=1):
        entry = _parse_line(["*", *line.split()], SourceLocation(file, number))
        if entry is not None and not entry.key.kind.startswith("#"):
            found.append(entry.key)
    return tuple(found)


def is_binary_list(file: str) -> bool:
    """Whether a file of ``RevokedHostKeys`` is a binary revocation list (KRL)."""
    try:
        with Path(file).open("rb") as opened:
            return opened.read(len(KRL_MAGIC)) == KRL_MAGIC
    except OSError:
        return False


def _unusable_file(file: str, why: str, remedy: str) -> UsageError:
    what = "RevokedHostKeys names a file that cannot be used"
    return UsageError(what, id="OR-SSH-028", where=file, why=why, remedy=remedy)


def _host_keys(entries: Iterable[_KnownHost], marker: str) -> tuple[HostKey, ...]:
    return tuple(entry.key for entry in entries if entry.marker == marker)


def _matching_entries(index: _Index, name: str) -> Iterator[_KnownHost]:
    yield from index.plain.get(name.lower(), ())
    for entry in index.patterns:
        if entry.hosts.startswith("|"):
            if _is_hash_of(entry.hosts, name):
                yield entry
        elif matches_host(name, entry.hosts):
            yield entry


def _is_hash_of(hosts: str, name: str) -> bool:
    _, _, salt, digest = hosts.split("|")
    actual = hmac.digest(base64.b64decode(salt), name.lower().encode(), "sha1")
    return hmac.compare_digest(actual, base64.b64decode(digest))


def _load_index(file: str) -> _Index:
    try:
        status = Path(file).stat()
        return _load_version(file, status.st_mtime_ns, status.st_size)
    except OSError:
        return _Index({}, [])


@functools.lru_cache(maxsize=64)
def _load_version(file: str, mtime_ns: int, size: int) -> _Index:
    del mtime_ns, size  # they make the cache notice a change
    index = _Index({}, [])
    text = Path(file).read_text(encoding="utf-8", errors="surrogateescape")
    for number, line in enumerate(text.split("\n"), start=1):
        entry = _parse_line(line.split(), SourceLocation(file, number))
        if entry is None:
            continue
        if set(entry.hosts) & set("*?!|"):
            index.patterns.append(entry)
        else:
            for name in entry.hosts.lower().split(","):
                index.plain.setdefault(name, []).append(entry)
    return index


def _parse_line(words: list[str], place: SourceLocation) -> _KnownHost | None:
    """A line that is blank, a comment, or not understood trusts nobody."""
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    if len(words) < 3 or words[0].startswith("#") or not _is_valid_hosts(words[0]):
        return None
    try:
        blob = base64.b64decode(words[2], validate=True)
    except binascii.Error:
        return None
    return _KnownHost(marker, words[0], HostKey(words[1], blob, place))


def _is_valid_hosts(hosts: str) -> bool:
    if not hosts.startswith("|"):
        return True
    parts = hosts.split("|")
    try:
        return (
            len(parts) == 4
            and parts[1] == "1"
            and all(base64.b64decode(part, validate=True) for part in parts[2:])
        )
    except binascii.Error:
        return False
