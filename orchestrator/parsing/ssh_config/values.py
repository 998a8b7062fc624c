"""The keywords that decide how a host is reached, and what OpenSSH 9.2 accepts as their values.

Every other keyword is passed over: what it says is not about reaching a host, or it belongs to
another version of ``ssh``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.parsing.ssh_config.hops import parse_domain, parse_hops, parse_port
from orchestrator.parsing.ssh_config.words import BLANKS, split_words

ALIASES = {
    "dsaauthentication": "pubkeyauthentication",
    "identityfile2": "identityfile",
    "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms",
    "smartcarddevice": "pkcs11provider",
}
_FLAG = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
_AUTHENTICATION = {**_FLAG, "unbound": "unbound", "host-bound": "host-bound"}
_FAMILY = {"any": "any", "inet": "inet", "inet6": "inet6"}
_MAX_INT = 2**31 - 1
_UNTIL_BLANK = re.compile(r".\S*", re.DOTALL)

# The words of a value and the text that they were cut from -> the words that count. Raises
# ``ValueError``.
Reader = Callable[[tuple[str, ...], str], tuple[str, ...]]


def _one_word(words: tuple[str, ...], text: str) -> tuple[str, ...]:
    del text
    if not words or not words[0]:
        raise ValueError("the value is missing")
    if len(words) > 1:
        raise ValueError(f"extra words behind the value: {' '.join(words[1:])[:80]!r}")
    return words


@dataclass(frozen=True, slots=True)
class _Choice:
    values: Mapping[str, str]

    def __call__(self, words: tuple[str, ...], text: str) -> tuple[str, ...]:
        (word,) = _one_word(words, text)
        if word.lower() not in self.values:
            known = ", ".join(dict.fromkeys(self.values.values()))
            raise ValueError(f"{word[:80]!r} is not one of {known}")
        return (self.values[word.lower()],)


def _port_number(words: tuple[str, ...], text: str) -> tuple[str, ...]:
    (word,) = _one_word(words, text)
    return (str(parse_port(word)),)


def _whole_count(words: tuple[str, ...], text: str) -> tuple[str, ...]:
    (word,) = _one_word(words, text)
    if not word.isascii() or not word.removeprefix("+").isdigit() or int(word) > _MAX_INT:
        raise ValueError(f"{word[:80]!r} is not a whole number")
    return (str(int(word)),)


def _several_words(words: tuple[str, ...], text: str) -> tuple[str, ...]:
    del text
    if not all(words):
        raise ValueError("an empty value")
    return words


def _several_or_none(words: tuple[str, ...], text: str) -> tuple[str, ...]:
    if len(_several_words(words, text)) > 1 and any(word.lower() == "none" for word in words):
        raise ValueError("'none' must stand alone")
    return words


def _domain_list(words: tuple[str, ...], text: str) -> tuple[str, ...]:
    return tuple(parse_domain(word) for word in _several_or_none(words, text))


def _name_list(words: tuple[str, ...], text: str) -> tuple[str, ...]:
    if any("=" in word for word in _several_words(words, text)):
        raise ValueError("a variable's name holds '='")
    return words


def _assignment_list(words: tuple[str, ...], text: str) -> tuple[str, ...]:
    del text
    if not all("=" in word for word in words):
        raise ValueError("a variable without '='")
    return words


def _rest_of_line(words: tuple[str, ...], text: str) -> tuple[str, ...]:
    del words
    return (text.lstrip(BLANKS + "="),)


def _jump_hops(words: tuple[str, ...], text: str) -> tuple[str, ...]:
    """The hops as one text; empty for ``none``."""
    (text,) = _rest_of_line(words, text)
    if text.lower() == "none":
        return ("",)
    found = _UNTIL_BLANK.match(text.partition("#")[0])
    hops = found[0] if found else ""
    parse_hops(hops)
    return (hops,)


READERS: Mapping[str, Reader] = {
    "addressfamily": _Choice(_FAMILY),
    "bindaddress": _one_word,
    "bindinterface": _one_word,
    "canonicaldomains": _domain_list,
    "canonicalizefallbacklocal": _Choice(_FLAG),
    "canonicalizehostname": _Choice({**_FLAG, "always": "always"}),
    "canonicalizemaxdots": _whole_count,
    "canonicalizepermittedcnames": _several_or_none,
    "casignaturealgorithms": _one_word,
    "certificatefile": _one_word,
    "ciphers": _one_word,
    "globalknownhostsfile": _several_or_none,
    "host": _several_words,
    "hostkeyalgorithms": _one_word,
    "hostkeyalias": _one_word,
    "hostname": _one_word,
    "identitiesonly": _Choice(_FLAG),
    "identityagent": _one_word,
    "identityfile": _one_word,
    "include": _several_words,
    "kexalgorithms": _one_word,
    "knownhostscommand": _rest_of_line,
    "macs": _one_word,
    "pkcs11provider": _one_word,
    "port": _port_number,
    "preferredauthentications": _one_word,
    "proxycommand": _rest_of_line,
    "proxyjump": _jump_hops,
    "proxyusefdpass": _Choice(_FLAG),
    "pubkeyacceptedalgorithms": _one_word,
    "pubkeyauthentication": _Choice(_AUTHENTICATION),
    "refuseconnection": _one_word,
    "revokedhostkeys": _one_word,
    "sendenv": _name_list,
    "setenv": _assignment_list,
    "tag": _one_word,
    "user": _one_word,
    "userknownhostsfile": _several_or_none,
}


def read_value(keyword: str, text: str) -> tuple[str, ...]:
    """The words of ``keyword`` (lower case, an alias resolved). Raises ``ValueError``."""
    words = split_words(text)  # quotes must be balanced for every keyword
    reader = READERS.get(keyword)
    return reader(words, text) if reader else words
