"""How OpenSSH cuts a line of ssh_config: one rule for keyword and ``Match``, one for the values.

Modelled on ``strdelim`` and ``argv_split`` of OpenSSH 9.2 (misc.c); a shell's rules differ: a
backslash before an ordinary character stays, and a quote may stand inside a word.
"""

from __future__ import annotations

BLANKS = " \t\r\n"
_ESCAPABLE = "'\"\\"


class UnbalancedQuotes(ValueError):
    """A quote is opened and not closed."""


def first_word(text: str) -> tuple[str, str | None]:
    """The word before the first blank, ``=`` or quoted part, and what follows; None: nothing does.

    One ``=`` may stand between the two. Raises :class:`UnbalancedQuotes`.
    """
    at = next((i for i, c in enumerate(text) if c in BLANKS + '"='), -1)
    if at < 0:
        return text, None
    if text[at] == '"':
        end = text.find('"', at + 1)
        if end < 0:
            raise UnbalancedQuotes
        return text[:at] + text[at + 1 : end], text[end + 1 :].lstrip(BLANKS)
    rest = text[at + 1 :].lstrip(BLANKS)
    if text[at] != "=" and rest.startswith("="):
        rest = rest[1:].lstrip(BLANKS)
    return text[:at], rest


def split_words(text: str) -> tuple[str, ...]:
    """The words of a value up to one that begins with ``#``. Raises :class:`UnbalancedQuotes`."""
    words: list[str] = []
    at = 0
    while True:
        while at < len(text) and text[at] in " \t":
            at += 1
        if at >= len(text) or text[at] == "#":
            return tuple(words)
        word, at = _next_word(text, at)
        words.append(word)


def _next_word(text: str, at: int) -> tuple[str, int]:
    """The word that begins at ``at``, and where it ends."""
    word, quote = "", ""
    while at < len(text):
        c, following = text[at], text[at + 1 : at + 2]
        if (
            c == "\\"
            and following
            and (following in _ESCAPABLE or (following == " " and not quote))
        ):
            word, at = word + following, at + 1
        elif not quote and c in " \t":
            return word, at
        elif c == quote:
            quote = ""
        elif not quote and c in "'\"":
            quote = c
        else:
            word += c
        at += 1
    if quote:
        raise UnbalancedQuotes
    return word, at
