"""asyncssh's options for the algorithms that ssh_config asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from asyncssh.encryption import get_default_encryption_algs, get_encryption_algs
from asyncssh.kex import get_default_kex_algs, get_kex_algs
from asyncssh.mac import get_default_mac_algs, get_mac_algs
from asyncssh.public_key import (
    get_certificate_algs,
    get_default_certificate_algs,
    get_default_public_key_algs,
    get_public_key_algs,
)

from orchestrator.adapters.transport.ssh import failures
from orchestrator.adapters.transport.ssh.algorithms import (
    accepts_signature,
    choose_algorithms,
    host_key_names,
)
from orchestrator.adapters.transport.ssh.known_hosts import Trust
from orchestrator.adapters.transport.ssh.target import Target

Names = Callable[[], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class _Kind:
    option: str
    supported: Names
    default: Names


_KINDS = {
    "kexalgorithms": _Kind("kex_algs", get_kex_algs, get_default_kex_algs),
    "ciphers": _Kind("encryption_algs", get_encryption_algs, get_default_encryption_algs),
    "macs": _Kind("mac_algs", get_mac_algs, get_default_mac_algs),
    "hostkeyalgorithms": _Kind(
        "server_host_key_algs",
        lambda: [*get_certificate_algs(), *get_public_key_algs()],
        lambda: [*get_default_certificate_algs(), *get_default_public_key_algs()],
    ),
}


_NAMES = {
    "kexalgorithms": "KexAlgorithms",
    "ciphers": "Ciphers",
    "macs": "MACs",
    "hostkeyalgorithms": "HostKeyAlgorithms",
    "pubkeyacceptedalgorithms": "PubkeyAcceptedAlgorithms",
}


def algorithm_options(target: Target, trust: Trust) -> dict[str, Any]:
    """Raises :class:`PreflightError` where nothing is left."""
    # Half the processor time of asyncssh's first choice, ChaCha20.
    options: dict[str, Any] = {"encryption_algs": "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"}
    wanted = dict(target.algorithms)
    for keyword, kind in _KINDS.items():
        if spec := wanted.get(keyword):
            default = _known_first(kind, trust)
            chosen = choose_algorithms(spec, default, _decode_names(kind.supported()))
            if not chosen:
                raise failures.no_algorithm(target, keyword, spec, library="asyncssh")
            options[kind.option] = chosen
    if spec := wanted.get("pubkeyacceptedalgorithms"):
        known = _decode_names(get_public_key_algs())
        options["signature_algs"] = [name for name in known if accepts_signature(spec, name)]
    return options


def lacked_algorithm(target: Target) -> str:
    """The first line of ssh_config of which asyncssh has nothing; empty if there is none."""
    for keyword, spec in target.algorithms:
        if keyword in _KINDS:
            kind = _KINDS[keyword]
            default, supported = _decode_names(kind.default()), _decode_names(kind.supported())
            left = bool(choose_algorithms(spec, default, supported))
        else:
            known = _decode_names(get_public_key_algs())
            left = any(accepts_signature(spec, name) for name in known)
        if not left:
            return f"{_NAMES[keyword]} {spec}"
    return ""


def _known_first(kind: _Kind, trust: Trust) -> list[str]:
    """The default; of host keys, first the types that can be checked."""
    names = _decode_names(kind.default())
    known = {alternative for key in trust.keys for alternative in host_key_names(key.kind)}
    return sorted(names, key=lambda name: name not in known)


def _decode_names(names: Sequence[bytes]) -> list[str]:
    return [name.decode() for name in names]
