"""The commands in lines and scripts of a shell, as far as words and ends of commands tell. Pure.

Nothing is expanded: a variable stays ``$NAME``, and lines of a here-document count as commands.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

# Words of the shell that a command may follow.
_KEYWORDS = frozenset("if then else elif while until do ! { }".split())
_ENDS, _REDIRECTIONS = ";&|()", "<>"


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
