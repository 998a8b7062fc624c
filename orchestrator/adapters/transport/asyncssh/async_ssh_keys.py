"""Keys for asyncssh: read once, offered in OpenSSH's order, never asked a passphrase for."""

from __future__ import annotations

import base64
import contextlib
import copy
import functools
from collections.abc import Iterable
from pathlib import Path

import asyncssh

from orchestrator.adapters.transport.ssh.algorithms import accepts_key
from orchestrator.adapters.transport.ssh.target import Target


@functools.lru_cache(maxsize=4096)
def public_key(kind: str, blob: bytes) -> asyncssh.SSHKey:
    """A public key from its known_hosts form. Raises ``asyncssh.KeyImportError``."""
    return asyncssh.import_public_key(f"{kind} {base64.b64encode(blob).decode()}")


async def key_pairs(target: Target, stack: contextlib.AsyncExitStack) -> list[asyncssh.SSHKeyPair]:
    """What to offer: the agent's copies of the configured files, its other keys, then the files.

    The agent's connection lives as long as ``stack``.
    """
    files = [
        key for path in target.identity_files if (key := _private_key(path, _file_version(path)))
    ]
    certificates = _read_certificates(target)
    public = {key.public_data for key in files} | {cert.public_data for cert in certificates}
    public |= {data for path in target.identity_files if (data := _public_half(path))}
    held = await _agent_pairs(target.agent, stack)
    named = [pair for pair in held if pair.public_data in public]
    others = [] if target.identities_only else [pair for pair in held if pair not in named]
    in_agent = {pair.public_data for pair in held}
    own = [key for key in files if key.public_data not in in_agent]
    pairs = [
        *_certified_pairs(named, certificates),
        *named,
        *others,
        *asyncssh.load_keypairs(own, certlist=certificates),
    ]
    return [pair for pair in pairs if accepts_key(target.accepted_keys, _key_kind(pair))]


def _key_kind(pair: asyncssh.SSHKeyPair) -> str:
    return pair.algorithm.decode()


def _certified_pairs(
    pairs: Iterable[asyncssh.SSHKeyPair], certificates: Iterable[asyncssh.SSHCertificate]
) -> list[asyncssh.SSHKeyPair]:
    """The agent's plain keys, once more, each with the certificate file that belongs to it."""
    certified = []
    for pair in pairs:
        for certificate in certificates:
            if certificate.key.public_data == pair.public_data:
                twin = copy.copy(pair)
                twin.set_certificate(certificate)
                certified.append(twin)
    return certified


async def _agent_pairs(socket: str, stack: contextlib.AsyncExitStack) -> list[asyncssh.SSHKeyPair]:
    if not socket:
        return []
    try:
        agent = await stack.enter_async_context(asyncssh.connect_agent(socket))
        return list(await agent.get_keys())
    except (OSError, ValueError):
        return []  # no agent is a normal state of affairs


def _read_certificates(target: Target) -> list[asyncssh.SSHCertificate]:
    paths = target.certificate_paths
    return [cert for path in paths if (cert := _read_certificate(path, _file_version(path)))]


def _file_version(path: str) -> tuple[int, int] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=256)
def _private_key(path: str, version: tuple[int, int] | None) -> asyncssh.SSHKey | None:
    """``None`` if it is missing, unreadable, or encrypted (the agent may hold it)."""
    if version is None:
        return None
    try:
        return asyncssh.read_private_key(path)
    except (OSError, asyncssh.KeyImportError):
        return None


def _public_half(path: str) -> bytes:
    key = _public_file(f"{path}.pub", _file_version(f"{path}.pub"))
    return key.public_data if key else b""


@functools.lru_cache(maxsize=256)
def _public_file(path: str, version: tuple[int, int] | None) -> asyncssh.SSHKey | None:
    if version is None:
        return None
    try:
        return asyncssh.read_public_key(path)
    except (OSError, asyncssh.KeyImportError):
        return None


@functools.lru_cache(maxsize=256)
def _read_certificate(path: str, version: tuple[int, int] | None) -> asyncssh.SSHCertificate | None:
    if version is None:
        return None
    try:
        return asyncssh.read_certificate(path)
    except (OSError, asyncssh.KeyImportError):
        return None
