"""Foreign text in Markdown: escaped words, tables, lists."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence

from orchestrator.adapters.report.document import one_line

_SPECIAL = re.compile(r"([\\`*_\[\]|~#])")


def escape_markdown(text: str) -> str:
    """Foreign text as plain words in Markdown."""
    return _SPECIAL.sub(r"\\\1", html.escape(one_line(text), quote=False))


def markdown_table(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]
) -> Iterator[str]:
    """A heading and a table; nothing without rows. ``title`` and ``headings`` are ours."""
    body = [f"| {' | '.join(map(escape_markdown, row))} |" for row in rows]
    if body:
        rule = f"|{' --- |' * len(headings)}"
        yield f"## {title}"
        yield "\n".join([f"| {' | '.join(headings)} |", rule, *body])


def bullet_list(title: str, items: Iterable[str]) -> Iterator[str]:
    """A heading and a list; nothing without items."""
    body = [f"- {item}" for item in items]
    if body:
        yield f"## {title}"
        yield "\n".join(body)
