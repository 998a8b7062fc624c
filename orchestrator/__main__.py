"""``python -m orchestrator`` is the ``orchestrate`` command."""

from __future__ import annotations

import gc
import sys

# Importing makes many objects that stay; at Python's own 700 they would be looked through at each
# step of it.
COLLECT_AFTER = 10_000


def run() -> int:
    """The command that the words of this process ask for, as all that the process does."""
    gc.set_threshold(COLLECT_AFTER)
    from orchestrator.cli.main import main

    code = main()
    gc.freeze()  # the process ends: nothing needs to be looked for any more
    return code


if __name__ == "__main__":
    sys.exit(run())
