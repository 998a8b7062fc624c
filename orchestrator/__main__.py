"""``python -m orchestrator`` is the ``orchestrate`` command."""

from __future__ import annotations

import gc
import signal
import sys

# Importing makes many objects that stay; at Python's own 700 they would be looked through at each
# step of it.
COLLECT_AFTER = 10_000


def run() -> int:
    """The command that the words of this process ask for, as all that the process does."""
    gc.set_threshold(COLLECT_AFTER)
    # A Ctrl-C among the imports waits for `main`, which lets it through and has words for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    from orchestrator.cli.main import main

    code = main()
    gc.freeze()  # the process ends: nothing needs to be looked for any more
    return code


if __name__ == "__main__":
    sys.exit(run())
