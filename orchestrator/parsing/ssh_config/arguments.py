"""ssh's own arguments, as an inventory holds them in text: what they say of the way to a host.

Read as OpenSSH 9.2 reads its command line: options by ``getopt``, and of each setting the first
that is given counts.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

_WITH_VALUE = frozenset("BDEFIJLOPQRSWbceilmopw")
_FLAGS = frozenset("1246AaCfGgKkMNnqsTtVvXxYy")
_SETTINGS = {
    "i": "identityfile",
    "p": "port",
    "l": "user",
    "J": "proxyjump",
    "F": "config",
    "4": "addressfamily",
    "6": "addressfamily",
    "b": "bindaddress",
    "B": "bindinterface",
    "W": "stdioforward",
}
# None of these changes which machine is reached, or as whom.
_HARMLESS = frozenset(
    "batchmode canonicalizehostname challengeresponseauthentication checkhostip ciphers "
    "compression connectionattempts connecttimeout controlmaster controlpath controlpersist "
    "escapechar exitonforwardfailure forwardagent forwardx11 forwardx11trusted "
    "gssapiauthentication gssapidelegatecredentials hashknownhosts hostbasedauthentication "
    "hostkeyalgorithms identitiesonly ipqos kbdinteractiveauthentication kexalgorithms loglevel "
    "macs numberofpasswordprompts passwordauthentication preferredauthentications "
    "pubkeyacceptedalgorithms pubkeyacceptedkeytypes pubkeyauthentication rekeylimit requesttty "
    "sendenv serveralivecountmax serveraliveinterval setenv stricthostkeychecking tcpkeepalive "
    "updatehostkeys visualhostkey".split()
)
_KEYWORD = re.compile(r"\s*([A-Za-z0-9]+)\s*[=\s]\s*(.*)", re.DOTALL)
_NETCAT = frozenset({"nc", "ncat", "netcat"})

Setting = tuple[str, str]


@dataclass(frozen=True, slots=True)
class StatedWay:
    """How ssh would go. ``lost`` are settings that an inventory has no field for.

    ``proxy_lost`` = a jump host or proxy is given that is not understood: without it, the host is
    dialled directly. ``unchecked`` = host keys would not be checked.
    """

    host: str | None = None
    user: str | None = None
    port: str | None = None
    keys: tuple[str, ...] = ()
    jump: str | None = None
    config: str | None = None
    known_hosts: str | None = None
    lost: tuple[str, ...] = ()
    jump_lost: tuple[str, ...] = ()
    proxy_lost: bool = False
    unchecked: bool = False


def split_arguments(text: str) -> list[str]:
    """Words as a shell would split them. Raises :class:`ValueError` for quotes left open."""
    return [word.strip() for word in shlex.split(text) if word.strip()]


def settings_of(words: Iterable[str]) -> Iterator[Setting]:
    """(keyword in lower case, value) of each option, in order; ``""`` for what is none."""
    waiting = iter(words)
    for word in waiting:
        if not word.startswith("-") or word == "-":
            yield "", word
            continue
        yield from _split_letters(word[1:], waiting)


def _split_letters(letters: str, waiting: Iterator[str]) -> Iterator[Setting]:
    """``-qp22`` is -q and -p 22: the rest of a word is the value of an option that has one."""
    for at, letter in enumerate(letters):
        if letter in _WITH_VALUE:
            value = letters[at + 1 :] or next(waiting, "")
            yield (
                _parse_assignment(value)
                if letter == "o"
                else (_SETTINGS.get(letter, letter), value)
            )
            return
        if letter not in _FLAGS:
            yield "", f"-{letter}"
        elif letter in _SETTINGS:
            yield _SETTINGS[letter], letter


def _parse_assignment(text: str) -> Setting:
    match = _KEYWORD.fullmatch(text)
    if match is None:
        return "", text
    keyword, value = match[1].lower(), match[2].strip()
    return keyword, value if keyword == "proxycommand" else _unquote_value(value)


def _unquote_value(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def way_of(settings: Iterable[Setting]) -> StatedWay:
    """The way that ``settings`` describe; the first of each counts, keys add up."""
    way = StatedWay()
    proxied = False
    for keyword, value in settings:
        match keyword:
            case "hostname":
                way = replace(way, host=way.host or value)
            case "user":
                way = replace(way, user=way.user or value)
            case "port":
                way = replace(way, port=way.port or value)
            case "identityfile":
                way = replace(way, keys=(*way.keys, value))
            case "config":
                way = replace(way, config=value)
            case "proxyjump" | "proxycommand" if not proxied:
                proxied = True
                way = _set_jump(way, keyword, value)
            case "proxyjump" | "proxycommand":
                pass
            case _:
                way = _keep_option(way, keyword, value)
    return way


def _keep_option(way: StatedWay, keyword: str, value: str) -> StatedWay:
    if keyword == "userknownhostsfile":
        first = (value.split() or [""])[0]
        if first in ("/dev/null", "none"):
            return replace(way, unchecked=True)
        return replace(way, known_hosts=way.known_hosts or first)
    if keyword == "stricthostkeychecking":
        return replace(way, unchecked=way.unchecked or value.lower() in ("no", "off"))
    if keyword in _HARMLESS or (len(keyword) == 1 and keyword not in "Ocm"):
        return way
    return replace(way, lost=(*way.lost, keyword or value))


def _set_jump(way: StatedWay, keyword: str, value: str) -> StatedWay:
    if value.lower() == "none":
        return way
    if keyword == "proxyjump":
        return replace(way, jump=value.replace("ssh://", ""))
    return _set_proxy(way, value)


def _set_proxy(way: StatedWay, command: str) -> StatedWay:
    """A proxy command that is ``ssh -W %h:%p HOST`` or ``ssh HOST nc %h %p`` is a jump host."""
    failed = replace(way, proxy_lost=True)
    try:
        words = split_arguments(command)
    except ValueError:
        return failed
    words = _without_shell(words)
    if not words or PurePosixPath(words[0]).name != "ssh":
        return failed
    options, destination, rest = _split_destination(words[1:])
    settings = list(settings_of(options))
    forwards = ("stdioforward", "%h:%p") in settings or ("stdioforward", "[%h]:%p") in settings
    if not destination or not (_is_netcat(rest) or (forwards and not rest)):
        return failed
    hop = way_of(setting for setting in settings if setting[0] != "stdioforward")
    if hop.jump or hop.proxy_lost or hop.host:
        return failed
    user, at, name = destination.removeprefix("ssh://").rpartition("@")
    user = hop.user if hop.user and not at else user
    port = f":{hop.port}" if hop.port else ""
    lost = [*(["key"] if hop.keys else []), *(["ssh_config"] if hop.config else []), *hop.lost]
    jump = f"{user}@{name}{port}" if user else f"{name}{port}"
    return replace(way, jump=jump, jump_lost=tuple(lost), unchecked=way.unchecked or hop.unchecked)


def _without_shell(words: list[str]) -> list[str]:
    """A command without ``exec`` before it and ``2>/dev/null`` behind it."""
    if words[:1] == ["exec"]:
        words = words[1:]
    if words[-2:-1] == ["2>"]:
        return words[:-2]
    return words[:-1] if words[-1:] and words[-1].startswith("2>") else words


def _split_destination(words: list[str]) -> tuple[list[str], str, list[str]]:
    """Options, the host, and what stands behind it; ssh takes options behind its host, too."""
    options: list[str] = []
    host = ""
    at = 0
    while at < len(words):
        word = words[at]
        if word.startswith("-") and len(word) > 1:
            options.append(word)
            if _wants_value(word[1:]) and at + 1 < len(words):
                at += 1
                options.append(words[at])
        elif host:
            break
        else:
            host = word
        at += 1
    return options, host, words[at:]


def _wants_value(letters: str) -> bool:
    for at, letter in enumerate(letters):
        if letter in _WITH_VALUE:
            return at + 1 == len(letters)
    return False


def _is_netcat(words: list[str]) -> bool:
    program = PurePosixPath(words[0]).name if words else ""
    return program in _NETCAT and words[-2:] == ["%h", "%p"]
