"""OpenSSH client configuration, read once and evaluated for each host.

Both SSH libraries bring a reader of their own, but they read the files again for every host and
disagree with OpenSSH in places. This one follows ``man ssh_config``: the first value wins,
``Include`` obeys the block it stands in, ``Match`` knows all, host, originalhost, user, localuser,
canonical, final and exec. The tests compare it with ``ssh -G``.
Not covered: rewriting host names by DNS (``CanonicalizeHostname``) and options about anything but
reaching and trusting a host.
"""

from __future__ import annotations

import functools
import getpass
import hashlib
import os
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from orchestrator.core.base.errors import Place, UsageError

SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
MAX_DEPTH = 16
MATCH_EXEC_TIMEOUT_S = 10.0
_REPEATED = {"identityfile", "certificatefile"}
_SETTING = re.compile(r"\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*)", re.DOTALL)
_TOKEN = re.compile(r"%(.)")
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


@dataclass(frozen=True, slots=True)
class Directive:
    """One line: the keyword in lower case, its words, and where it stands."""

    keyword: str
    words: tuple[str, ...]
    place: Place


@dataclass(slots=True)
class Settings:
    """What applies to one host: first words by lower-case keyword, tokens not yet expanded."""

    alias: str
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    identity_files: list[str] = field(default_factory=list)
    certificate_files: list[str] = field(default_factory=list)
    final: bool = False

    def get(self, keyword: str, default: str = "") -> str:
        """The value of ``keyword`` (lower case) as one string."""
        words = self.values.get(keyword)
        return " ".join(words) if words else default

    def is_set(self, keyword: str) -> bool:
        """Whether a yes/no option is on."""
        return self.get(keyword).lower() in {"yes", "true"}

    @property
    def user(self) -> str:
        return self.get("user") or local_user()

    @property
    def port(self) -> int:
        return int(self.get("port") or 22)

    @property
    def host(self) -> str:
        """The name or address to connect to."""
        tokens = {"h": self.alias, "%": "%"}
        return _TOKEN.sub(lambda m: tokens.get(m[1], m[0]), self.get("hostname")) or self.alias

    def expand(self, text: str) -> str:
        """Replace ``%`` tokens (not ``%C``'s rarer friends), ``${NAME}`` and a leading ``~``."""
        text = _VARIABLE.sub(lambda m: os.environ.get(m[1], m[0]), text)
        text = _TOKEN.sub(lambda m: self._tokens.get(m[1], m[0]), text)
        return str(Path(text).expanduser()) if text.startswith("~") else text

    @property
    def _tokens(self) -> Mapping[str, str]:
        local = socket.gethostname()
        port, jump = str(self.port), self.get("proxyjump")
        hashed = f"{local}{self.host}{port}{self.user}{jump}"
        return {
            "%": "%",
            "C": hashlib.sha1(hashed.encode(), usedforsecurity=False).hexdigest(),
            "d": str(Path.home()),
            "h": self.host,
            "i": str(os.getuid()),
            "j": jump,
            "k": self.get("hostkeyalias") or self.alias,
            "L": local.partition(".")[0],
            "l": local,
            "n": self.alias,
            "p": port,
            "r": self.user,
            "u": local_user(),
        }


@functools.cache
def local_user() -> str:
    """The name of the user who runs this program."""
    return getpass.getuser()


def evaluate(
    alias: str, files: Sequence[Sequence[Directive]], *, preset: Mapping[str, str]
) -> Settings:
    """What the parsed ``files`` say about ``alias``; ``preset`` wins, as the command line does.

    Raises :class:`UsageError` for a ``Match`` that is not understood.
    """
    settings = Settings(alias, {keyword: (value,) for keyword, value in preset.items()})
    passes = _Evaluation(settings, settings.alias)
    passes.apply_all(files)
    if passes.wants_final or settings.is_set("canonicalizehostname"):
        settings.final = True
        settings.values.setdefault("hostname", (alias,))  # the first pass has decided on the host
        _Evaluation(settings, settings.host).apply_all(files)
    return settings


class _Evaluation:
    """One pass over the files; ``name`` is what ``Host`` patterns are compared with."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings = settings
        self._name = name
        self.wants_final = False

    def apply_all(self, files: Sequence[Sequence[Directive]]) -> None:
        for directives in files:
            self._apply(directives, active=True, depth=0)

    def _apply(self, directives: Sequence[Directive], *, active: bool, depth: int) -> None:
        enclosing = active
        for directive in directives:
            if directive.keyword == "host":
                active = enclosing and matches(self._name, directive.words)
            elif directive.keyword == "match":
                active = self._match(directive, enclosing)
            elif directive.keyword == "include":
                for file in _included(directive, depth):
                    self._apply(read_file(file), active=active, depth=depth + 1)
            elif active:
                self._set(directive)

    def _set(self, directive: Directive) -> None:
        keyword, words = directive.keyword, directive.words
        settings = self._settings
        if keyword in _REPEATED:
            kind = (
                settings.identity_files
                if keyword == "identityfile"
                else (settings.certificate_files)
            )
            kind.extend(word for word in words[:1] if word not in kind)
        elif not (keyword in _PROXIES and _PROXIES & settings.values.keys()):
            settings.values.setdefault(keyword, words)

    def _match(self, directive: Directive, enclosing: bool) -> bool:
        result = enclosing
        words = iter(directive.words)
        for word in words:
            negated, criterion = word.startswith("!"), word.removeprefix("!").lower()
            if criterion in {"canonical", "final"}:
                self.wants_final |= criterion == "final"
                holds = self._settings.final
            elif criterion == "all":
                holds = True
            else:
                pattern = next(words, "")
                holds = result and self._holds(criterion, pattern, directive.place)
            result = result and holds != negated
        return result

    def _holds(self, criterion: str, pattern: str, place: Place) -> bool:
        settings = self._settings
        subjects = {
            "host": settings.host,
            "originalhost": settings.alias,
            "user": settings.user,
            "localuser": local_user(),
        }
        if criterion == "exec":
            return _succeeds(settings.expand(pattern))
        if criterion not in subjects:
            raise UsageError(
                f"cannot evaluate 'Match {criterion}'",
                id="OR-SSH-020",
                where=place,
                why="orchestrate knows all, host, originalhost, user, localuser, final and exec",
                remedy="say it with 'Host' or 'Match host', or give 'ssh_config:' another file",
            )
        return matches(subjects[criterion], pattern.split(","))


_PROXIES = {"proxyjump", "proxycommand"}


def matches(name: str, patterns: Sequence[str]) -> bool:
    """OpenSSH pattern lists: ``*`` and ``?``, and one that ``!`` negates overrules the others."""
    name = name.lower()
    found = False
    for pattern in patterns:
        positive = pattern.removeprefix("!").lower().replace("[", "[[]")
        if fnmatchcase(name, positive):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _succeeds(command: str) -> bool:
    # OpenSSH does the same with this line of the user's own file.
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=MATCH_EXEC_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def config_files(chosen: str | None) -> list[Path]:
    """The files to read: ``chosen`` alone, as with ``ssh -F``, or the user's and the system's."""
    if chosen is None:
        return [Path.home() / ".ssh" / "config", SYSTEM_CONFIG]
    return [] if chosen == "none" else [Path(chosen).expanduser()]


def read_config(chosen: str | None) -> list[tuple[Directive, ...]]:
    """The parsed :func:`config_files`. Raises ``UsageError`` if a chosen file does not exist."""
    files = config_files(chosen)
    if chosen is not None and not all(path.is_file() for path in files):
        raise UsageError(
            "the ssh_config file does not exist",
            id="OR-SSH-021",
            where=files[0],
            remedy="correct 'ssh_config:' in the inventory",
        )
    return [read_file(path) for path in files if path.is_file()]


def read_file(path: Path) -> tuple[Directive, ...]:
    """The lines of one file; parsed once for each version of it."""
    status = path.stat()
    return _read_version(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=256)
def _read_version(path: Path, mtime_ns: int, size: int) -> tuple[Directive, ...]:
    del mtime_ns, size  # they make the cache notice a change
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    return tuple(_directives(text, path))


def _directives(text: str, path: Path) -> Iterator[Directive]:
    for number, line in enumerate(text.splitlines(), start=1):
        found = _SETTING.match(line)
        if found and not line.lstrip().startswith("#"):
            keyword, place = found[1].lower(), Place(str(path), number)
            whole = keyword in {"proxycommand", "remotecommand"}
            yield Directive(keyword, _words(found[2].strip(), place, whole=whole), place)


def _words(text: str, place: Place, *, whole: bool) -> tuple[str, ...]:
    if whole:
        return (text,)
    if not set(text) & set("\"'\\#"):
        return tuple(text.split())
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(
            "cannot read the line", id="OR-SSH-023", where=place, why=str(error)
        ) from error
    comment = next((i for i, word in enumerate(words) if word.startswith("#")), len(words))
    return tuple(words[:comment])


def _included(directive: Directive, depth: int) -> Iterator[Path]:
    """The files that an ``Include`` names, in glob order."""
    if depth >= MAX_DEPTH:
        raise UsageError(
            "Include goes too deep",
            id="OR-SSH-022",
            where=directive.place,
            remedy="break the circle of Includes",
        )
    is_system = Path(directive.place.file).is_relative_to(SYSTEM_CONFIG.parent)
    base = SYSTEM_CONFIG.parent if is_system else Path.home() / ".ssh"
    for word in directive.words:
        pattern = base / Path(word).expanduser()
        names = Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))
        yield from (path for path in sorted(names) if path.is_file())
