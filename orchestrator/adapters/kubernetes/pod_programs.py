"""Programs for pods that travel as text: in a manifest, or in a command line."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from orchestrator import node_agent

FOLDER = Path(node_agent.__file__).parent / "kubernetes"
DOCSTRING = re.compile(r'^ *"""(?:.|\n)*?"""$', re.MULTILINE)


@functools.cache
def pod_program(name: str) -> str:
    """The program ``name``, without what only people read of it."""
    text = DOCSTRING.sub("", (FOLDER / f"{name}.py").read_text())
    lines = (line.split("  #")[0].rstrip() for line in text.splitlines())
    return "\n".join(filter(None, lines)) + "\n"
