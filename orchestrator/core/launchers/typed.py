"""Launchers that a user types in front of a script, or in one of the shell. Pure.

Started as it stands on every node, each would make a world of its own there: several trainings that
know nothing of each other, all of which succeed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from orchestrator.core.launchers.shell_lines import line_commands, script_commands

PYTHON = re.compile(r"python(3(\.\d+)?)?\Z")
# Command names; for those that are also used otherwise, the word that follows.
LAUNCHERS: Mapping[str, str] = {
    "torchrun": "",
    "accelerate": "launch",
    "accelerate-launch": "",
    "deepspeed": "",
    "deepspeed.pt": "",
    "mpirun": "",
    "mpiexec": "",
    "mpiexec.hydra": "",
    "orterun": "",
    "prterun": "",
    "srun": "",
    "horovodrun": "",
    "composer": "",
    "colossalai": "run",
    "fabric": "run",
    "lightning": "run",
    # Trainers and submitters that start one of the others, or a job of their own, by themselves.
    "axolotl": "train",
    "llamafactory-cli": "train",
    "ray": "job",
    "torchx": "run",
    "tune": "run",
}
LAUNCHER_MODULES: Mapping[str, str] = {
    "torch.distributed.run": "torchrun",
    "torch.distributed.launch": "torchrun",
    "accelerate.commands.launch": "accelerate launch",
    "deepspeed.launcher.runner": "deepspeed",
}
# What may stand in front of a command without changing what it is.
PREFIXES = frozenset(
    (
        "chrt compute-sanitizer doas env exec ionice ncu nice nohup numactl setsid stdbuf strace"
        " sudo taskset time timeout uvx xvfb-run"
    ).split()
)
# Likewise, with the verb that makes them one: environments, profilers.
PREFIX_VERBS: Mapping[str, str] = {
    **dict.fromkeys("conda hatch mamba micromamba pdm pipenv pixi poetry rye uv".split(), "run"),
    "nsys": "profile",
    "py-spy": "record",
}
SHELLS = frozenset("bash dash ksh sh zsh".split())
SHELL_LINE = re.compile(r"-[a-z]*c\Z")
ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
PER_NODE = frozenset({"--nproc-per-node", "--nproc_per_node", "--num_gpus"})
MODULE_FLAGS = frozenset({"-m", "--module"})
# Whoever says these means several nodes, and may know what runs on them.
OF_SEVERAL_NODES = ("--nnodes", "--rdzv", "--node", "--num_machines", "--machine", "--host")


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedLauncher:
    """``name`` as it is called; ``job``: the words that it would have started, as far as they can
    be told; ``per_node``: how many ranks it was asked for, None = not said.
    """

    name: str
    job: tuple[str, ...] = ()
    per_node: int | None = None

    @property
    def instead(self) -> str:
        """What to give to ``orchestrate run`` in its place."""
        ranks = f"--ranks-per-node {self.per_node} " if self.per_node else ""
        return f"{ranks}-- {shlex.join(self.job) or 'SCRIPT ARGS...'}"


def typed_launcher(words: Sequence[str]) -> TypedLauncher | None:
    """The launcher that a command line begins with, behind nothing but prefixes; else None."""
    command = list(_without_prefix(words))
    if not command:
        return None
    name, rest = PurePosixPath(command[0]).name, command[1:]
    if PYTHON.match(name) or name.startswith("$"):
        called = _launcher_module(rest)
        return None if called is None else _described(*called)
    if name not in LAUNCHERS:
        return None
    verb = LAUNCHERS[name]
    if not verb:
        return _described(name, rest)
    return _described(f"{name} {verb}", rest[1:]) if rest[:1] == [verb] else None


def is_shell(word: str) -> bool:
    """Whether a command is a shell."""
    return PurePosixPath(word).name in SHELLS


def typed_python(words: Sequence[str]) -> bool:
    """Whether a command is a Python behind a prefix, which no launcher is given. ``uv run`` and its
    like take a script or a module for one.
    """
    command = list(_without_prefix(words))
    if not command or command == list(words):
        return False
    name = PurePosixPath(command[0]).name
    return PYTHON.match(name) is not None or name.endswith(".py")


def typed_warnings(words: Sequence[str]) -> Iterator[str]:
    """What is said of a plain command that was probably meant to be more than that."""
    launcher = typed_launcher(words)
    if launcher is not None:
        yield (
            f"{launcher.name} starts a world of its own wherever it is started: "
            f"to have one over all nodes, give {launcher.instead}"
        )
    elif typed_python(words):
        yield (
            f"behind {words[0]} Python is a plain command: its ranks get no MASTER_ADDR and do "
            "not meet; give the script itself, and variables with --env NAME=VALUE"
        )


def script_warnings(name: str, text: str) -> Iterator[str]:
    """The same of a script of the shell: the first launcher that it calls, with its line."""
    for line, words in script_commands(text):
        launcher = typed_launcher(words)
        if launcher is None or any(word.startswith(OF_SEVERAL_NODES) for word in words):
            continue
        yield (
            f"{name}:{line} calls {launcher.name}, which starts a world of its own on every node: "
            f"to have one over all of them, give {launcher.instead}"
        )
        return


def _without_prefix(words: Sequence[str]) -> Iterator[str]:
    """The words from the command on that prefixes such as ``env A=1`` or ``uv run`` start."""
    rest = list(words)
    while rest:
        name = PurePosixPath(rest[0]).name
        if rest[1:2] == [PREFIX_VERBS.get(name)]:
            options, rest = rest[2:], _after_options(rest[2:])
            before = options[: len(options) - len(rest)]
            if name == "uv" and not MODULE_FLAGS.isdisjoint(before):
                rest = ["python", *before, *rest]
                break
        elif name in PREFIXES:
            rest = _after_options(rest[1:])
        elif name in SHELLS and len(rest) > 2 and SHELL_LINE.match(rest[1]):
            rest = _after_options(_main_command(rest[2]))
        else:
            break
    yield from rest


def _main_command(line: str) -> list[str]:
    """The words of a shell's line that say what it is: of a launcher, else of its last command."""
    commands = line_commands(line)
    launchers = (words for words in commands if typed_launcher(words) is not None)
    return next(launchers, [[], *commands][-1])


def _after_options(words: list[str]) -> list[str]:
    """Without options, their values, assignments and numbers. What follows an option is taken for
    its value, unless it is a command that is known here.
    """
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--":
            return words[at + 1 :]
        value = at > 0 and words[at - 1].startswith("-") and "=" not in words[at - 1]
        skipped = word.startswith("-") or ASSIGNMENT.match(word) or word[:1].isdigit()
        if not skipped and not (value and not _is_known(word)):
            return words[at:]
        at += 1
    return []


def _is_known(word: str) -> bool:
    name = PurePosixPath(word).name
    known = name in LAUNCHERS or name in PREFIXES or name in PREFIX_VERBS
    return known or PYTHON.match(name) is not None


def _launcher_module(words: list[str]) -> tuple[str, list[str]] | None:
    """(launcher, its words) of ``python -m torch.distributed.run ...``."""
    for at, word in enumerate(words):
        if word == "-m" and at + 1 < len(words):
            name = LAUNCHER_MODULES.get(words[at + 1])
            return None if name is None else (name, words[at + 2 :])
        if not word.startswith("-"):
            return None
    return None


def _described(name: str, words: Sequence[str]) -> TypedLauncher:
    return TypedLauncher(name=name, job=_job(words), per_node=_per_node(words))


def _job(words: Sequence[str]) -> tuple[str, ...]:
    """From the first script or module on: options of launchers are many, and most have a value."""
    for at, word in enumerate(words):
        if word in MODULE_FLAGS and at + 1 < len(words):
            return ("-m", *words[at + 1 :])
        if word.endswith(".py") and not word.startswith("-"):
            return tuple(words[at:])
    return ()


def _per_node(words: Sequence[str]) -> int | None:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        text = value if equals else following
        if option in PER_NODE and text.isdigit():
            return int(text)
    return None
