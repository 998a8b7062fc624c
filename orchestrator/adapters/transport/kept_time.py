"""How long a connection stays for the next command."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.base.errors import UsageError

KEEP_VARIABLE = "ORCHESTRATE_KEEP_CONNECTIONS"
KEEP_S = 600
MAX_KEEP_S = 86_400


def kept_seconds(environ: Mapping[str, str]) -> int:
    """How long a connection stays that nobody uses; 0: it ends with the command.

    Raises ``UsageError`` for a variable that holds no such number.
    """
    text = environ.get(KEEP_VARIABLE, "").strip() or str(KEEP_S)
    if not text.isdecimal() or int(text) > MAX_KEEP_S:
        raise UsageError(
            f"{KEEP_VARIABLE} is {text!r}",
            id="OR-SSH-015",
            why=f"it is a whole number of seconds, at most {MAX_KEEP_S}; 0 keeps no connection",
            remedy=f"unset it to keep connections for {KEEP_S} s",
        )
    return int(text)
