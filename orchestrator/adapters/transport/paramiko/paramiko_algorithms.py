"""paramiko's settings for the algorithms that ssh_config asks for."""

from __future__ import annotations

import paramiko

from orchestrator.adapters.transport.ssh import failures
from orchestrator.adapters.transport.ssh.algorithms import (
    accepts_signature,
    choose_algorithms,
    host_key_names,
)
from orchestrator.adapters.transport.ssh.known_hosts import Trust
from orchestrator.adapters.transport.ssh.target import Target

# keyword -> the attribute of SecurityOptions, and where Transport keeps what it knows
_KINDS = {
    "kexalgorithms": ("kex", "_kex_info"),
    "ciphers": ("ciphers", "_cipher_info"),
    "macs": ("digests", "_mac_info"),
    "hostkeyalgorithms": ("key_types", "_key_info"),
}
_SIGNATURES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)


def disabled_keys(target: Target) -> dict[str, list[str]]:
    """The signatures that ``PubkeyAcceptedAlgorithms`` leaves out."""
    accepted = target.accepted_keys
    return {"pubkeys": [name for name in _SIGNATURES if not accepts_signature(accepted, name)]}


def set_algorithms(link: paramiko.Transport, target: Target, trust: Trust) -> None:
    """Raises ``PreflightError`` where nothing is left."""
    options = link.get_security_options()
    known = {name for key in trust.keys for name in host_key_names(key.kind)}
    # Known types first: a server with several keys then shows the one that can be checked.
    options.key_types = sorted(options.key_types, key=lambda kind: kind not in known)
    wanted = dict(target.algorithms)
    for keyword, (attribute, table) in _KINDS.items():
        if spec := wanted.get(keyword):
            chosen = choose_algorithms(
                spec, getattr(options, attribute), list(getattr(link, table))
            )
            if not chosen:
                raise failures.no_algorithm(target, keyword, spec, library="paramiko")
            setattr(options, attribute, tuple(chosen))
