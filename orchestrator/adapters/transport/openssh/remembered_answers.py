"""Answers of ``ssh -G`` that are used again while nothing that they depend on has changed.

An answer is found by the whole question: the words for ``ssh``, its program, the account, the
machine's name, the variables that a program's loader reads. It counts as long as every file that
``ssh`` read is what it was, and for ``KEPT_S`` at most. What ``ssh`` itself says that it read must
be the files that we know of: otherwise nothing is kept.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.adapters.cache.json_cache import JsonCache, code_stamp
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.transport.openssh.config_sources import ConfigSources
from orchestrator.adapters.transport.openssh.ssh_settings import SshSettings
from orchestrator.adapters.transport.ssh_config.account import current_account
from orchestrator.core.model.inventory import SshEndpoint

KEPT_S = 600.0
MOST = 2048
_READERS = ("adapters/transport/openssh", "adapters/transport/ssh_config", "parsing/ssh_config")
# ssh takes the default port from the first; some builds take the allowed algorithms from the other.
_OF_THE_MACHINE = ("/etc/services", "/proc/sys/crypto/fips_enabled")
_LOADERS = ("LD_", "DYLD_", "GLIBC_", "OPENSSL_")
_READ = "debug1: Reading configuration data (.*?)\r?$"


class RememberedAnswers:
    """What ``ssh`` answered to this account. Cannot fail: what is not readable is not there."""

    def __init__(self, environ: Mapping[str, str], clock: Callable[[], float] = time.time) -> None:
        self._environ = environ
        self._clock = clock
        self._cache = JsonCache(Layout.from_environment(environ).ssh_answers, MOST)

    def find(self, endpoint: SshEndpoint) -> bytes | None:
        """What ``ssh -G`` would answer now; None: it must be asked."""
        question = self._question(endpoint)
        entry: Any = self._cache.find(question) if question else None
        try:
            age_s = self._clock() - entry["at"]
            sources = ConfigSources(entry["files"], entry["patterns"])
            counts = 0 <= age_s <= KEPT_S and sources.are_unchanged()
            return str(entry["text"]).encode(errors="surrogateescape") if counts else None
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def keep(
        self, endpoint: SshEndpoint, settings: SshSettings, sources: ConfigSources, words: str
    ) -> None:
        """Remember an answer. ``sources`` is how things were before ``ssh`` was asked, ``words``
        what it said beside the answer with ``-v``.
        """
        question = self._question(endpoint)
        looks_up = settings.first("canonicalizehostname") not in {"", "no", "false"}
        if question is None or looks_up or sources.present != files_read(words):
            return
        if sources.are_unchanged():
            entry = {"at": self._clock(), "files": sources.files, "patterns": sources.patterns}
            text = settings.text.decode(errors="surrogateescape")
            self._cache.keep(question, {**entry, "text": text})

    def _question(self, endpoint: SshEndpoint) -> dict[str, Any] | None:
        """All that decides the answer beside the configuration; None: something more does."""
        program = _find_program("ssh", self._environ)
        if program is None:
            return None
        account = current_account()
        loader = {k: self._environ[k] for k in self._environ if k.startswith(_LOADERS)}
        return {
            "argv": list(endpoint.argv),
            "ssh": program,
            "account": [account.name, account.home, account.uid, self._environ.get("HOME")],
            "machine": [socket.gethostname(), *map(_file_digest, _OF_THE_MACHINE)],
            "loader": loader,
            "readers": _own_code(),
        }


def files_read(words: str) -> set[str]:
    """The files that ``ssh -v`` says it read."""
    return set(re.findall(_READ, words, re.MULTILINE))


def _find_program(name: str, environ: Mapping[str, str]) -> list[str | int] | None:
    """Path and identity of what a shell would start; None: there is none, or it is a script, whose
    answer may depend on anything.
    """
    paths = (Path(folder, name).absolute() for folder in os.get_exec_path(environ))
    path = next((path for path in paths if os.access(path, os.X_OK) and path.is_file()), None)
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            now, script = os.fstat(file.fileno()), file.read(2) == b"#!"
    except OSError:
        return None
    status = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
    return None if script else [str(path), *status]


def _file_digest(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""


@functools.cache
def _own_code() -> list[list[Any]]:
    return code_stamp(_READERS)
