"""The algorithms that ssh_config asks for, as far as an SSH library has them.

A name that the library lacks is passed over while another is left, as a server passes over what it
lacks. ``+``, ``-`` and ``^`` change the library's own default, which takes OpenSSH's place.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.parsing.ssh_config.patterns import matches_list, matches_pattern

CERTIFICATE = "-cert-v01@openssh.com"
# One method under two names each: before and after it became a standard.
_SAME = (
    frozenset({"curve25519-sha256", "curve25519-sha256@libssh.org"}),
    frozenset({"sntrup761x25519-sha512", "sntrup761x25519-sha512@openssh.com"}),
)
_RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")


def choose_algorithms(spec: str, default: Sequence[str], supported: Sequence[str]) -> list[str]:
    """What to offer, best first; empty if the library has nothing of what ``spec`` asks for."""
    operator, names = (spec[0], spec[1:]) if spec[:1] in set("+-^") else ("", spec)
    if operator == "-":
        return [name for name in default if not matches_list(name, names)]
    named = [found for name in names.split(",") for found in _supported_names(name, supported)]
    chosen = {"+": [*default, *named], "^": [*named, *default]}.get(operator, named)
    return list(dict.fromkeys(chosen))


def _supported_names(pattern: str, supported: Sequence[str]) -> list[str]:
    """The names of the library for one name, which may be a pattern."""
    patterns = next((names for names in _SAME if pattern in names), {pattern})
    return [name for name in supported if any(matches_pattern(name, p) for p in patterns)]


def host_key_names(kind: str) -> tuple[str, ...]:
    """The algorithms by which a server may show a key of type ``kind``."""
    return _RSA_SIGNATURES if kind == "ssh-rsa" else (kind,)


def accepts_signature(spec: str, name: str) -> bool:
    """Whether ``PubkeyAcceptedAlgorithms SPEC`` allows a signature algorithm, with or without a
    certificate; an empty ``spec`` allows all.
    """
    return _accepts_name(spec, name) or _accepts_name(spec, f"{name}{CERTIFICATE}")


def accepts_key(spec: str, kind: str) -> bool:
    """Whether ``PubkeyAcceptedAlgorithms SPEC`` allows to offer a key, or a certificate, of type
    ``kind``; an RSA key signs in several ways, and one is enough.
    """
    plain, certificate, _ = kind.partition(CERTIFICATE)
    signatures = _RSA_SIGNATURES if plain == "ssh-rsa" else (plain,)
    return any(_accepts_name(spec, f"{name}{certificate}") for name in signatures)


def _accepts_name(spec: str, name: str) -> bool:
    if not spec or spec[0] in "+^":
        return True
    if spec[0] == "-":
        return not matches_list(name, spec[1:])
    return matches_list(name, spec)
