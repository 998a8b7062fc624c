"""``python -m orchestrator`` is the ``orchestrate`` command."""

from __future__ import annotations

import gc
import sys

# Importing makes many objects that stay; at Python's own 700 they would be looked through at each
# step of it.
COLLECT_AFTER = 10_000


def run() -> int:
    """The command that the words of this process ask for, as all that the process does: it ends
    here, unless something is raised.
    """
    code = run_somewhere()
    from orchestrator.adapters.end_process import end_process

    end_process(code)


def run_somewhere() -> int:
    """The command, in a process that is warm or in this one."""
    from orchestrator.adapters.warm.client import Nobody, run_elsewhere

    likeness = None
    try:
        run_elsewhere(sys.argv[1:])
    except Nobody as nobody:
        likeness = nobody.likeness
    if sys.flags.no_site:
        import site

        site.main()
    code = run_here()
    if likeness is not None:
        from orchestrator.adapters.warm.start import start_warm_process

        start_warm_process(likeness)
    return code


def run_here() -> int:
    """The command in this process, whichever that is."""
    import signal

    gc.set_threshold(COLLECT_AFTER)
    # A Ctrl-C among the imports waits for `main`, which lets it through and has words for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    from orchestrator.cli.main import main

    code = main()
    gc.freeze()  # the process ends: nothing needs to be looked for any more
    return code


def stay_warm() -> None:
    """Wait for commands to fork; goes on in the forks, as the command."""
    from pathlib import Path

    from orchestrator.adapters.warm.become import become
    from orchestrator.adapters.warm.warm_process import stay_warm

    become(stay_warm(Path(sys.argv[2])), run_here)


if __name__ == "__main__":
    sys.exit(run_somewhere())
