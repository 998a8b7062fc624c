"""``orchestrate``: the table of verbs, and how every failure becomes text and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from orchestrator import __version__
from orchestrator.cli.lazy import LazyGroup, ReaderGone, Verb
from orchestrator.cli.outermost import (
    Interrupted,
    broken_pipe,
    report_click,
    report_error,
    report_internal,
)
from orchestrator.core.base.errors import OrchestrateError, UsageError

_JOBS, _MACHINES, _RUNS, _NIGHTS = "Jobs", "Machines", "Runs", "Nights"
_SETUP = "Configuration"
VERBS = (
    Verb("run", "run", _JOBS, "Run a workload, or your own script."),
    Verb("plan", "plan", _JOBS, "Show exactly what a run would do."),
    Verb("exec", "exec", _JOBS, "Run one command on every node.", attribute="exec_"),
    Verb("sync", "sync", _JOBS, "Bring your project to every node."),
    Verb("probe", "probe", _MACHINES, "Show what the machines have."),
    Verb("doctor", "doctor", _MACHINES, "Check the machines."),
    Verb("explain", "explain", _MACHINES, "Show where the ranks' environment came from."),
    Verb("ps", "runs", _RUNS, "List runs."),
    Verb("show", "runs", _RUNS, "Show a run's result."),
    Verb("logs", "runs", _RUNS, "Print or follow the logs of a run."),
    Verb("diagnose", "diagnose", _RUNS, "Name the cause in logs."),
    Verb("attach", "runs", _RUNS, "Follow a run that another process coordinates."),
    Verb("resume", "resume", _RUNS, "Continue a run."),
    Verb("stop", "runs", _RUNS, "Stop a run and clean up behind it."),
    Verb("history", "history", _RUNS, "List past runs with their trend; export, import."),
    Verb("compare", "compare", _RUNS, "Compare two runs, figure by figure."),
    Verb("baseline", "baseline", _RUNS, "Keep runs that others are compared with."),
    Verb("clean", "runs", _RUNS, "Remove what runs left on nodes and here."),
    Verb("nightly", "nightly", _NIGHTS, "Run a workload every night."),
    Verb("notify", "notify", _NIGHTS, "Notify people of runs and nights."),
    Verb("status", "status", _NIGHTS, "Show what runs, which nights are missing, and trends."),
    Verb("drill", "drill", _SETUP, "Break things, measure what follows."),
    Verb("cluster", "cluster", _SETUP, "List and check inventories."),
    Verb("workload", "workload", _SETUP, "List and show workloads."),
    Verb("completion", "completion", _SETUP, "Print shell completion."),
)


@click.group(
    cls=LazyGroup,
    verbs=VERBS,
    default="run",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Without a verb, `orchestrate --cluster C --workload W` runs the workload.",
)
@click.version_option(__version__, prog_name="orchestrate")
def cli() -> None:
    """Run multi-GPU jobs across machines that are reachable over plain SSH."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the process exit code; everything raised ends here.

    A verb that prints its own ``result`` line must not raise after it: with ``--json`` an error
    that arrives here is printed as the last line.
    """
    _open_closed_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    assert isinstance(cli, LazyGroup)
    verb = next(iter(cli.with_verb(words)), "")
    as_json = "--json" in words[: words.index("--") if "--" in words else None]
    try:
        code = cli.main(args=words, prog_name="orchestrate", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        if as_json:
            usage = UsageError(error.format_message(), id="usage.command-line")
            return report_error(usage, verb=verb, as_json=True)
        return report_click(error)
    except OrchestrateError as error:
        return report_error(error, verb=verb, as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        stopped = Interrupted("interrupted", id="interrupted")
        return report_error(stopped, verb=verb, as_json=as_json)
    except (BrokenPipeError, ReaderGone):
        return broken_pipe()
    except Exception as error:  # noqa: BLE001 - the outermost frame: nothing may escape as a traceback
        return report_internal(error, os.environ, verb=verb, as_json=as_json)


def _open_closed_streams() -> None:
    """What was started without a standard stream (``>&-``) writes to nowhere, not into the next
    file that happens to get its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - kept
