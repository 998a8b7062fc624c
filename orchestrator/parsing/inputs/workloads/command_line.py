"""What follows ``--``: which of its words are a Python's, and what that is to run.

The options are those of CPython 3.8 to 3.14 (``python --help``); like it, letters may be joined
(``-uB``), and ``-m`` and ``-c`` end them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import NoReturn

from orchestrator.core.base.errors import UsageError
from orchestrator.core.launchers.typed import ASSIGNMENT, PYTHON, typed_launcher
from orchestrator.core.model.inventory import Cluster, PythonKind, PythonSpec

FLAGS = frozenset("bBdEhiIOPqRsStuvVx")
WITH_VALUE = frozenset("WX")
LAST = frozenset("cm")
LONG_WITH_VALUE = frozenset({"--check-hash-based-pycs"})
# Of these Python prints something and leaves.
ASKS_ONLY = frozenset("hV")
ASKS_ONLY_LONG = frozenset({"--help", "--version", "--help-env", "--help-xoptions", "--help-all"})
_DECLARE = "type python for the one that the inventory names under python:, or an absolute path"
NO_COMMAND = "orchestrate run --cluster NAME -- train.py --lr 1e-4"


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonCall:
    """``interpreter options target arguments``. ``interpreter`` "" = none was typed.

    ``flag`` is ``-m``, ``-c`` or "" for a script; ``target`` the module, the code or the script.
    """

    interpreter: str
    options: tuple[str, ...]
    flag: str
    target: str
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """A short name for what runs."""
        if self.flag == "-c":
            return "python"
        return self.target.rpartition(".")[2] if self.flag else PurePosixPath(self.target).stem


def python_call(words: Sequence[str]) -> PythonCall | None:
    """What of ``words`` a Python runs; None for a command of another kind, which includes a Python
    that is only asked for its version. Raises :class:`UsageError` for one without a program.
    """
    word = words[0]
    if word == "-m":
        return _Reader("", words).read()
    if word.endswith(".py"):
        return PythonCall(
            interpreter="", options=(), flag="", target=word, arguments=tuple(words[1:])
        )
    if PYTHON.match(PurePosixPath(word).name) is None:
        return None
    return _Reader(word, words[1:]).read()


def job_name(words: Sequence[str]) -> str:
    """What a run of ``words`` is called."""
    call = python_call(words)
    return call.name if call is not None else PurePosixPath(words[0]).stem


def refuse_misunderstandings(words: Sequence[str], launcher: str) -> None:
    """Raises :class:`UsageError` for what would silently do something else than what was meant."""
    if not words or not words[0]:
        raise UsageError("no command after --", id="run.no-command", remedy=NO_COMMAND)
    if ASSIGNMENT.match(words[0]):
        what = f"{words[0]!r} is an assignment of a shell, not a command"
        raise UsageError(what, id="run.no-command", remedy=f"--env {words[0]} before the --")
    if words[0] in ("source", ".") and len(words) > 1:
        what = f"{words[0]!r} is a word of a shell, not a command"
        raise UsageError(what, id="run.no-command", remedy=f"-- bash {words[1]}")
    if words[0].startswith("-") and words[0] != "-m":
        what = f"{words[0]!r} is an option, not a command"
        raise UsageError(what, id="run.no-command", remedy=NO_COMMAND)
    typed = typed_launcher(words)
    if typed is not None and launcher != "command":
        raise UsageError(
            f"{typed.name} would start a world of its own on every node, not one over all of them",
            id="run.launcher-typed",
            where=" ".join(words)[:200],
            why="the ranks are started for you, with the environment that torchrun would set",
            remedy=f"orchestrate run {typed.instead}; --launcher command runs it as it stands",
        )


def with_interpreter(cluster: Cluster, words: Sequence[str]) -> Cluster:
    """``cluster`` with the Python that was typed for the ranks of all nodes, if it says more than
    the inventory does. Raises :class:`UsageError` where that contradicts the inventory.
    """
    call = python_call(words)
    typed = call.interpreter if call is not None else ""
    if typed in ("", "python", "python3"):
        return cluster
    if "/" in typed and not typed.startswith(("/", "~")):
        what = f"{typed} is a Python of this project, but nodes have their own"
        raise UsageError(what, id="run.python", remedy=_DECLARE)
    built = [node for node in cluster.workers if node.python.kind is not PythonKind.INTERPRETER]
    if "/" not in typed and built:
        what = f"{typed} was typed, but {built[0].name} has an environment of its own"
        raise UsageError(what, id="run.python", where=cluster.source, remedy=_DECLARE)
    python = PythonSpec(kind=PythonKind.INTERPRETER, value=typed)
    return replace(cluster, nodes=tuple(replace(node, python=python) for node in cluster.nodes))


class _Reader:
    """Takes the options off ``words`` as the interpreter does."""

    def __init__(self, interpreter: str, words: Sequence[str]) -> None:
        self._interpreter = interpreter
        self._words = words
        self._options: list[str] = []
        self._rest = list(words)

    def read(self) -> PythonCall | None:
        while self._rest and self._rest[0].startswith("-") and self._rest[0] != "-":
            word = self._rest.pop(0)
            flags = word[1 : _end_of_flags(word)]
            if ASKS_ONLY & set(flags) or word in ASKS_ONLY_LONG:
                return None
            letter = word[len(flags) + 1 : len(flags) + 2]
            if letter in LAST:
                return self._last(f"-{flags}", f"-{letter}", word[len(flags) + 2 :])
            self._option(word, letter, joined=len(word) > len(flags) + 2)
        if not self._rest or self._rest[0] == "-":
            self._refuse(f"{self._interpreter or '-m'} is given nothing to run")
        return self._call("", self._rest)

    def _option(self, word: str, letter: str, *, joined: bool) -> None:
        """One that something else follows."""
        self._options.append(word)
        if letter and letter not in WITH_VALUE and not word.startswith("--"):
            self._refuse(f"{word!r} is no option of Python")
        if (letter in WITH_VALUE and not joined) or word in LONG_WITH_VALUE:
            self._options += self._rest[:1]
            del self._rest[:1]

    def _last(self, before: str, flag: str, value: str) -> PythonCall:
        """``-m`` or ``-c``, whose value may be joined to it or be the next word."""
        words = [value, *self._rest] if value else self._rest
        if not words or not words[0]:
            self._refuse(f"{flag} needs {'a module' if flag == '-m' else 'code'}")
        if before != "-":
            self._options.append(before)
        return self._call(flag, words)

    def _call(self, flag: str, words: list[str]) -> PythonCall:
        return PythonCall(
            interpreter=self._interpreter,
            options=tuple(self._options),
            flag=flag,
            target=words[0],
            arguments=tuple(words[1:]),
        )

    def _refuse(self, what: str) -> NoReturn:
        where = " ".join((self._interpreter, *self._words)).strip()[:200]
        raise UsageError(what, id="run.python", where=where, remedy=NO_COMMAND)


def _end_of_flags(word: str) -> int:
    """Where the letters that have no value end; behind the first dash of a long option."""
    if word.startswith("--"):
        return 1
    return next((at for at, letter in enumerate(word) if at and letter not in FLAGS), len(word))
