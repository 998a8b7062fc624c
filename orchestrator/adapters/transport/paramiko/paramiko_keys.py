"""Keys for paramiko: the agent's and the files', in OpenSSH's order, never a passphrase asked."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import paramiko
from paramiko.agent import AgentKey, AgentSSH
from paramiko.pkey import PublicBlob

from orchestrator.adapters.transport.ssh.algorithms import accepts_key
from orchestrator.adapters.transport.ssh.target import Target

AGENT_TIMEOUT_S = 10.0


def offered_keys(target: Target) -> Generator[tuple[str, paramiko.PKey]]:
    """Name and key: those with a certificate, the agent's (as far as they may be offered), then the
    files; encrypted ones not.
    """
    files = [(path, key) for path in target.identity_files if (key := _private_key(path))]
    public = {key.asbytes() for _, key in files} | set(_public_halves(target))
    with _agent_keys(target.agent) as held:
        named = [key for key in held if key.asbytes() in public]
        others = () if target.identities_only else [key for key in held if key not in named]
        in_agent = {key.asbytes() for key in held}
        own = [(path, key) for path, key in files if key.asbytes() not in in_agent]
        plain = [*((_agent_name(key), key) for key in (*named, *others)), *own]
        for name, key in (*_certified_keys(target), *plain):
            if accepts_key(target.accepted_keys, _key_kind(key)):
                yield name, key


def _agent_name(key: AgentKey) -> str:
    return key.comment or key.get_name()


def _key_kind(key: paramiko.PKey) -> str:
    return key.public_blob.key_type if key.public_blob else key.get_name()


def _certified_keys(target: Target) -> Iterator[tuple[str, paramiko.PKey]]:
    """The key files again, each with the certificate that ``CertificateFile`` names for it.

    paramiko itself finds the certificate that lies beside a key.
    """
    for certificate in target.certificate_files:
        for path in target.identity_files:
            key = _private_key(path)
            with contextlib.suppress(OSError, ValueError, paramiko.SSHException):
                if key is not None and _belongs_to_key(certificate, key):
                    key.load_certificate(certificate)
                    yield f"{path} with {certificate}", key


def _belongs_to_key(certificate: str, key: paramiko.PKey) -> bool:
    """Whether the certificate is for this key: it holds the same public numbers."""
    blob = PublicBlob.from_file(certificate).key_blob
    message = paramiko.Message(blob)
    message.get_text(), message.get_binary()  # its type and a nonce
    plain = paramiko.Message(key.asbytes())
    plain.get_text()
    return blob[message.packet.tell() :].startswith(plain.get_remainder())


@contextlib.contextmanager
def _agent_keys(address: str) -> Iterator[Sequence[AgentKey]]:
    """The keys of the agent at the socket ``address``, usable inside the block."""
    if not address:
        yield ()
        return
    with socket.socket(socket.AF_UNIX) as connection:
        # paramiko's own Agent finds the socket in the environment only.
        agent = AgentSSH()
        try:
            connection.settimeout(AGENT_TIMEOUT_S)
            connection.connect(address)
            agent._connect(connection)  # type: ignore[attr-defined]  # noqa: SLF001
        except (OSError, paramiko.SSHException):
            yield ()  # no agent is a normal state of affairs
            return
        yield agent.get_keys()


def _private_key(path: str) -> paramiko.PKey | None:
    try:
        return paramiko.PKey.from_path(path)
    except (OSError, ValueError, TypeError, paramiko.SSHException):
        return None  # missing, unreadable, or encrypted (the agent may hold it)


def _public_halves(target: Target) -> Iterator[bytes]:
    for path in target.identity_files:
        with contextlib.suppress(OSError, ValueError, IndexError, paramiko.SSHException):
            yield PublicBlob.from_file(str(Path(f"{path}.pub"))).key_blob
