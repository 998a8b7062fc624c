"""Ending this process as Python ends it, but for taking a thousand modules apart."""

from __future__ import annotations

import atexit
import os
import sys
from typing import NoReturn

# What Python says when the last of the output cannot be written.
_UNWRITTEN = 120


def end_process(code: int) -> NoReturn:
    """Wait for threads, call what was registered for the end, write what is buffered, and leave."""
    if "threading" in sys.modules:
        import threading

        threading._shutdown()  # type: ignore[attr-defined] # noqa: SLF001 - as Py_FinalizeEx does
    atexit._run_exitfuncs()  # noqa: SLF001
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or _UNWRITTEN
    os._exit(code & 0xFF)
