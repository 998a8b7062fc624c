"""The commands in lines and scripts of a shell, as far as words and ends of commands tell. Pure.

Nothing is expanded: a variable stays ``$NAME``, and lines of a here-document count as commands.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

# Words of the shell that a command may follow.
_KEYWORDS = frozenset("if then else elif while until do ! { }".split())
_ENDS, _REDIRECTIONS = ";&|()", "<>"
_ASSIGNED = re.compile(
    r"""^[ \t]*(?:export[ \t]+|local[ \t]+|readonly[ \t]+)?([A-Za-z_]\w*)="""
    r"""(?:\(([^()]*)\)|"((?:[^"\\]|\\.)*)"|'([^']*)'|([^\s;&|()<>"'`]*))[ \t]*(?:[;#&\n]|$)""",
    re.MULTILINE | re.DOTALL,
)
_NAMED = re.compile(r"\$(?:(\w+)|\{(\w+)(?:\[[@*]\])?\})")
# A variable may name others, which name others; longer words and values are left as they are.
_DEPTH, _MOST_WORDS, _LONG = 4, 512, 4096


def script_commands(text: str) -> Iterator[tuple[int, list[str]]]:
    """(line, words) of each command; lines that end in a backslash are one."""
    begun, kept = 1, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not kept:
            begun = number
        if line.endswith("\\"):
            kept += line[:-1]
            continue
        for words in line_commands(kept + line):
            yield begun, words
        kept = ""


def line_commands(line: str) -> list[list[str]]:
    """The words of each command of a line, without redirections; none if quotes are open."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=_ENDS + _REDIRECTIONS)
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    try:
        for word in lexer:
            if word and set(word) <= {*_ENDS, *_REDIRECTIONS}:
                commands += [] if _is_redirected(word, lexer, commands[-1]) else [[]]
            elif commands[-1] or word not in _KEYWORDS:
                commands[-1].append(word)
    except ValueError:
        return []
    return [words for words in commands if words]


def _is_redirected(word: str, following: Iterator[str], before: list[str]) -> bool:
    """Whether ``word`` is ``>`` or the like; its file, and the number before it, are taken away."""
    if not {*word} & {*_REDIRECTIONS}:
        return False
    next(following, "")
    if before and before[-1] in ("0", "1", "2"):
        before.pop()
    return True


def assigned_values(text: str) -> Mapping[str, str]:
    """What a script's lines give to variables, the last one counts; lists with blanks between."""
    found = (match.groups() for match in _ASSIGNED.finditer(text.replace("\\\n", " ")))
    values = ((name, next(v for v in forms if v is not None)) for name, *forms in found)
    return {name: value for name, value in values if len(value) <= _LONG}


def with_values(words: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """``words`` with the variables that are known, each of which may be several words."""
    found = list(words)
    for _ in range(_DEPTH):
        if not any("$" in word for word in found):
            break
        found = [part for word in found for part in _parts(word, values)][:_MOST_WORDS]
    return found


def _parts(word: str, values: Mapping[str, str]) -> list[str]:
    if "$" not in word or len(word) > _LONG:
        return [word]
    text = _NAMED.sub(lambda name: values.get(name[1] or name[2], name[0]), word)
    if text == word:
        return [word]
    try:
        return shlex.split(text, comments=True)
    except ValueError:
        return text.split()
