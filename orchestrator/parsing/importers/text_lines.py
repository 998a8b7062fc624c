"""Lines of a foreign file, as the tools that own the formats divide it."""

from __future__ import annotations

import re

_LINE_END = re.compile(r"\r\n|\r|\n")


def split_lines(text: str) -> list[str]:
    """Without their ends. ``str.splitlines`` divides at form feeds and U+2028, too, so that the
    rest of a comment would become a host.
    """
    lines = _LINE_END.split(text)
    return lines if lines[-1] else lines[:-1]
