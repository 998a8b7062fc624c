"""Every command that a document, a help text or a remedy names exists, with its options."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click
import pytest

from orchestrator.cli.main import VERBS, LazyGroup, cli
from tests.architecture.source import ROOT, Module, files, package_modules

SPAN = re.compile(r"`([^`\n]+)`")
FENCED = re.compile(r"^(```|~~~)[^\n]*\n(.*?)^\1", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4}(?:\$ )?(orchestrate .*)$", re.MULTILINE)
MENTION = re.compile(r"(?<![\w./~-])orchestrate (?=[a-z-])")
# Where a command ends in prose. A blank after it, for `[!]` and `a,b` are parts of arguments.
END = re.compile(r"[;)]|,(?=\s|$)|: |\.(?=\s|$)|\n| #|[`\"]|\s\(| \| (?=\s*[\d(])| \|\s*$")
# What "orchestrate" does in sentences, which is no command.
PROSE = frozenset("agent build chooses does itself keeps knows that would".split())
NAMES = frozenset(verb.name for verb in VERBS)
HOLE = "X"  # what stands for a value that is filled in


@dataclass(frozen=True, slots=True)
class Mention:
    """Where a command is named, and its words after ``orchestrate``."""

    where: str
    words: str


def mentions_in(text: str, where: str) -> Iterator[Mention]:
    """The commands that follow the word ``orchestrate``."""
    for found in MENTION.finditer(text):
        rest = text[found.end() :]
        following = MENTION.search(rest)
        rest = rest[: following.start()] if following else rest
        end = END.search(rest)
        yield Mention(where, rest[: end.start()] if end else rest)


def of_documents() -> Iterator[Mention]:
    for path in (path for path in files() if path.suffix == ".md"):
        text, where = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
        for block in (*(block for _, block in FENCED.findall(text)), *INDENTED.findall(text)):
            yield from mentions_in(block, where)
        for span in SPAN.findall(FENCED.sub("", text)):
            first, _, rest = span.partition(" ")
            if first == "orchestrate":
                yield Mention(where, rest)
            elif first in NAMES and "--" in rest:
                yield Mention(where, span)


def of_settings() -> Iterator[Mention]:
    """Comments, reasons and remedies in clusters, suites, playbooks, workloads and the like."""
    for path in (path for path in files() if path.suffix in (".yaml", ".toml", ".sh")):
        where = path.relative_to(ROOT).as_posix()
        if not where.startswith("tests/"):
            yield from mentions_in(path.read_text(encoding="utf-8"), where)


def of_program() -> Iterator[Mention]:
    for module in package_modules():
        for line, text in strings(module):
            yield from mentions_in(text, f"{module.where}:{line}")


def strings(module: Module) -> Iterator[tuple[int, str]]:
    """(line, text) of every string, also of help texts, with a hole for each value filled in."""
    inside = {
        id(part)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    for node in ast.walk(module.tree):
        if isinstance(node, ast.JoinedStr):
            parts = (str(p.value) if isinstance(p, ast.Constant) else HOLE for p in node.values)
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and id(node) not in inside:
            yield node.lineno, str(node.value)


def complaint(mention: Mention) -> str:
    """What is wrong with a command that is named, or ``""``."""
    try:
        words = shlex.split(mention.words)
    except ValueError:
        words = mention.words.split()
    if not words:
        return ""
    if words[0].startswith("-"):
        words = ["run", *words]
    command = _command(cli, words[0])
    if command is None:
        return "" if words[0] in PROSE else f"there is no command {words[0]!r}"
    return _wrong(command, words[1:])


def _wrong(command: click.Command, words: Sequence[str]) -> str:
    alone = isinstance(command, click.Group) and command.invoke_without_command
    if isinstance(command, click.Group) and not (alone and words and words[0].startswith("-")):
        return _wrong_in_group(command, words)
    options = {name: o for o in command.params for name in (*o.opts, *o.secondary_opts)}
    options["--help"] = options["-h"] = click.Option(["--help"], is_flag=True)
    skip = False
    for word in words:
        if word in ("--", "...", "shows", "says", "lists", "removes"):
            break  # what follows is the user's own command, or prose
        name, equals, _ = word.strip("[]").partition("=")
        if not skip and name.startswith("-") and len(name) > 1:
            if name not in options:
                return f"{command.name} has no option {name}"
            option = options[name]
            skip = not equals and isinstance(option, click.Option) and not option.is_flag
        else:
            skip = False
    return ""


def _wrong_in_group(group: click.Group, words: Sequence[str]) -> str:
    """``cluster list | show NAME``: each of the alternatives."""
    if not words:
        return ""
    text = " ".join(words)
    for part in re.split(r" \| ", text):
        first, *rest = part.split()
        command = _command(group, first)
        if command is None:
            return f"{group.name} has no command {first!r}"
        wrong = _wrong(command, rest) or _wrong_choice(command, rest)
        if wrong:
            return wrong
    return ""


def _wrong_choice(command: click.Command, words: Sequence[str]) -> str:
    """``import hostfile|ansible FILE``: each of the values that an argument may have."""
    argument = next((p for p in command.params if isinstance(p, click.Argument)), None)
    if argument is None or not isinstance(argument.type, click.Choice) or not words:
        return ""
    values = words[0].split("|")
    unknown = [v for v in values if v.islower() and v not in argument.type.choices]
    return f"{command.name} does not take {unknown[0]!r}" if unknown else ""


def _command(group: click.Command, name: str) -> click.Command | None:
    assert isinstance(group, click.Group)
    context = click.Context(group)
    if isinstance(group, LazyGroup) and name not in group.list_commands(context):
        return None
    return group.get_command(context, name)


@pytest.mark.parametrize("source", [of_documents, of_program, of_settings])
def test_commands_that_texts_name_exist(source: object) -> None:
    """A remedy that cannot be followed is worse than none."""
    assert callable(source)
    named: list[Mention] = list(source())

    wrong = [f"{m.where}: orchestrate {m.words}: {complaint(m)}" for m in named if complaint(m)]

    assert wrong == []
    assert len(named) > 5


@pytest.mark.parametrize(
    "words, wrong",
    [
        ("sync --dry-run shows what travels", ""),
        ("sync --dri-run", "sync has no option --dri-run"),
        ("syncs", "there is no command 'syncs'"),
        ("cluster import ssh_confg FILE", "import does not take 'ssh_confg'"),
        ("cluster import hostfile|ansble FILE", "import does not take 'ansble'"),
        ("cluster list | shows NAME", "cluster has no command 'shows'"),
        ("clean X --discard", ""),
        ("--cluster C --wrkload W", "run has no option --wrkload"),
        ("run --cluster C -- train.py --lr 1e-4", ""),
        ("logs X --ranks X --strerr", "logs has no option --strerr"),
        ("keeps its files", ""),
    ],
)
def test_the_test_finds_what_does_not_exist(words: str, wrong: str) -> None:
    assert complaint(Mention("here", words)) == wrong


def test_commands_are_found_in_sentences() -> None:
    text = "stop it (orchestrate stop X), or orchestrate resume X --retry; orchestrate ps."

    assert [m.words for m in mentions_in(text, "")] == ["stop X", "resume X --retry", "ps"]
