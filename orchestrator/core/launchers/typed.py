"""Launchers that a user types in front of a script, or in one of the shell. Pure.

Started as it stands on every node, each would make a world of its own there: several trainings that
know nothing of each other, all of which succeed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from orchestrator.core.launchers.shell_lines import (
    assigned_values,
    line_commands,
    script_commands,
    with_values,
)

PYTHON = re.compile(r"python(3(\.\d+)?)?\Z")
# Command names; for those that are also used otherwise, the words that may follow.
LAUNCHERS: Mapping[str, str] = {
    **dict.fromkeys("torchrun accelerate-launch deepspeed deepspeed.pt ds composer".split(), ""),
    "accelerate": "launch",
    "colossalai": "run",
    "fabric": "run",
    "lightning": "run",
    "torchpack": "dist-run",
    # Those of MPI, with the names that distributions give to several of them beside each other.
    **dict.fromkeys(
        (
            "mpirun mpirun.openmpi mpirun.mpich mpirun.hydra mpiexec mpiexec.openmpi mpiexec.mpich"
            " mpiexec.hydra mpirun_rsh orterun prterun prun horovodrun aprun jsrun lrun ibrun"
        ).split(),
        "",
    ),
    # Submitters: every node would ask for a job of its own.
    **dict.fromkeys("srun sbatch salloc qsub bsub".split(), ""),
    "flux": "run submit batch alloc",
    "ray": "job",
    "sky": "launch exec jobs",
    "torchx": "run",
    # Trainers that start one of the others by themselves.
    "axolotl": "train",
    "llamafactory-cli": "train",
    "megatron": "pt sft rlhf",
    "swift": "pt sft rlhf",
    "tune": "run",
    "xtuner": "train",
}
# Of these each node starts its own share, if their options say so.
OF_ONE_SHARE = ("torchrun", "accelerate", "composer", "colossalai", "fabric", "lightning", "tune")
LAUNCHER_MODULES: Mapping[str, str] = {
    "torch.distributed.run": "torchrun",
    "torch.distributed.launch": "torchrun",
    "accelerate.commands.launch": "accelerate launch",
    "composer.cli.launcher": "composer",
    "deepspeed.launcher.runner": "deepspeed",
    "deepspeed.launcher.launch": "deepspeed",
    "horovod.runner.launch": "horovodrun",
    "horovod.runner": "horovodrun",
}
# What may stand in front of a command without changing what it is.
PREFIXES = frozenset(
    (
        "chrt compute-sanitizer doas env exec ionice ipython ipython3 kernprof ncu nice nohup"
        " numactl scalene setsid stdbuf strace sudo taskset time timeout uvx viztracer xvfb-run"
    ).split()
)
# Likewise, with the verb that makes them one: environments, profilers.
PREFIX_VERBS: Mapping[str, str] = {
    **dict.fromkeys("conda hatch mamba micromamba pdm pipenv pixi poetry rye uv".split(), "run"),
    "coverage": "run",
    "memray": "run",
    "nsys": "profile",
    "py-spy": "record",
}
# Whose -m is Python's.
OF_MODULES = frozenset("coverage ipython ipython3 kernprof memray uv viztracer".split())
# Engines of containers, with the verbs behind which, past options and an image, a command stands.
CONTAINERS: Mapping[str, str] = {
    **dict.fromkeys(("apptainer", "singularity"), "exec run"),
    **dict.fromkeys(("docker", "podman", "nerdctl"), "run exec"),
    "enroot": "start exec",
}
SHELLS = frozenset("bash dash ksh sh zsh".split())
SHELL_LINE = re.compile(r"-[a-z]*c\Z")
ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
PER_NODE = ("--nproc-per-node", "--num-gpus")
MODULE_FLAGS = frozenset({"-m", "--module"})
# How many nodes, which of them this is, and what else is said only where there are several.
NODES = ("--nnodes", "--num-machines", "--num-nodes")
NODE_RANK = ("--node-rank", "--machine-rank")
OF_SEVERAL_NODES = ("--machine", "--main-process-ip", "--master-addr", "--node", "--rdzv")
SBATCH = re.compile(r"^#SBATCH\s", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedLauncher:
    """``name`` as it is called; ``job``: the words that it would have started, as far as they can
    be told; ``per_node``: how many ranks it was asked for, None = not said; ``options``: all words
    behind it; ``contained``: an engine of containers was to start it.
    """

    name: str
    job: tuple[str, ...] = ()
    per_node: int | None = None
    options: tuple[str, ...] = ()
    contained: bool = False

    @property
    def instead(self) -> str:
        """What to give to ``orchestrate run`` in its place."""
        image = "--container IMAGE " if self.contained else ""
        ranks = f"--ranks-per-node {self.per_node} " if self.per_node else ""
        return f"{image}{ranks}-- {shlex.join(self.job) or 'SCRIPT ARGS...'}"

    @property
    def trouble(self) -> str:
        """What is wrong with it on every node, "" = it starts one share of a world over several.

        A number of nodes that is a variable is believed, as is a node's rank.
        """
        alone = "starts a world of its own on every node"
        nodes, rank = _value_of(NODES, self.options), _value_of(NODE_RANK, self.options)
        if not self.name.startswith(OF_ONE_SHARE):
            return "" if self.name == "deepspeed" and "--no_ssh" in self.options else alone
        if nodes in ("1", "1:1") or (nodes == "" and self.name == "torchrun"):
            return alone
        if not nodes and not any(
            _dashed(word).startswith(OF_SEVERAL_NODES) for word in self.options
        ):
            return alone
        if rank.isdigit():
            return f"gives every node the rank {rank}"
        return ""


def typed_launcher(words: Sequence[str]) -> TypedLauncher | None:
    """The launcher that a command line begins with, behind nothing but prefixes; else None."""
    command = list(_without_prefix(words))
    called = _called(command)
    if called is None:
        return None
    before = words[: len(words) - len(command)]
    contained = any(_is_container(before[at:]) for at in range(len(before)))
    return replace(_described(*called), contained=contained)


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
    if SBATCH.search(text):
        yield (
            f"{name}: lines with #SBATCH have no effect here: nodes and GPUs are the inventory's; "
            "--launcher slurm asks Slurm for a job"
        )
    values = assigned_values(text)
    for line, words in script_commands(text):
        launcher = typed_launcher(with_values(words, values))
        if launcher is None or not launcher.trouble:
            continue
        yield (
            f"{name}:{line} calls {launcher.name}, which {launcher.trouble}: "
            f"to have one world over all of them, give {launcher.instead}"
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
            if name in OF_MODULES and not MODULE_FLAGS.isdisjoint(before):
                rest = ["python", *before, *rest]
                break
        elif name in PREFIXES:
            rest = _after_options(rest[1:])
        elif _is_container(rest):
            known = (at for at in range(2, len(rest)) if _is_known(rest[at]))
            rest = rest[next(known, len(rest)) :]
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
    its value, unless it is a command that is known here, or a script.
    """
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--":
            return words[at + 1 :]
        value = at > 0 and words[at - 1].startswith("-") and "=" not in words[at - 1]
        skipped = word.startswith("-") or ASSIGNMENT.match(word) or word[:1].isdigit()
        if not skipped and (not value or word.endswith(".py") or _is_known(word)):
            return words[at:]
        at += 1
    return []


def _is_known(word: str) -> bool:
    name = PurePosixPath(word).name
    known = name in LAUNCHERS or name in PREFIXES or name in PREFIX_VERBS
    return known or PYTHON.match(name) is not None


def _is_container(words: Sequence[str]) -> bool:
    verbs = CONTAINERS.get(PurePosixPath(words[0]).name, "").split()
    return len(words) > 1 and words[1] in verbs


def _called(command: Sequence[str]) -> tuple[str, list[str]] | None:
    """(launcher, its words) of a command that is one."""
    if not command:
        return None
    name, rest = PurePosixPath(command[0]).name, list(command[1:])
    if PYTHON.match(name) or name.startswith("$"):
        return _launcher_module(rest)
    verbs = LAUNCHERS.get(name, "-").split()
    if not verbs:
        return name, rest
    return (f"{name} {rest[0]}", rest[1:]) if rest and rest[0] in verbs else None


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
    per_node = _value_of(PER_NODE, words)
    return TypedLauncher(
        name=name,
        job=_job(words),
        per_node=int(per_node) if per_node.isdigit() else None,
        options=tuple(words),
    )


def _job(words: Sequence[str]) -> tuple[str, ...]:
    """From the first script or module on: options of launchers are many, and most have a value."""
    for at, word in enumerate(words):
        if word in MODULE_FLAGS and at + 1 < len(words):
            return ("-m", *words[at + 1 :])
        if word.endswith(".py") and not word.startswith("-"):
            return tuple(words[at:])
    return ()


def _value_of(names: Sequence[str], words: Sequence[str]) -> str:
    """What follows the first of these options, with a blank or ``=``; "" where none is there."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if _dashed(option) in names:
            return value if equals else following
    return ""


def _dashed(option: str) -> str:
    return option.replace("_", "-")
