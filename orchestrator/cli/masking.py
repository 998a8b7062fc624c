"""Text that leaves the machine in bug reports: what the environment holds is taken out of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from urllib.parse import quote

# Shorter values are words and numbers that stand in every traceback.
_MIN_MASKED = 6
_HARMLESS = frozenset(
    "HOME LANG LC_ALL LOGNAME OLDPWD ORCHESTRATE_HOME PATH PWD PYTHONPATH SHELL TERM TMPDIR USER "
    "VIRTUAL_ENV _".split()
)


def mask_secrets(text: str, environ: Mapping[str, str]) -> str:
    """``text`` with the values of environment variables replaced by ``$NAME``.

    A traceback is sent to strangers, and the text of a foreign exception may hold anything.
    """
    named = [(value, name) for name, value in environ.items() if name not in _HARMLESS]
    for value, name in sorted(named, key=lambda pair: len(pair[0]), reverse=True):
        if len(value) >= _MIN_MASKED and not value.isdecimal():
            for form in _written_forms(value):
                text = text.replace(form, f"${name}")
    return text


def _written_forms(value: str) -> Iterator[str]:
    """As it is, and as ``repr``, JSON, URLs and basic authentication write it."""
    raw = value.encode("utf-8", "surrogateescape")
    yield value
    yield repr(value)[1:-1]
    yield json.dumps(value)[1:-1]
    yield quote(raw, safe="")
    yield base64.b64encode(raw).decode()
