"""``orchestrate``: the table of verbs, each imported only when it is invoked, and how every failure
becomes text and an exit code.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import click

from orchestrator import __version__
from orchestrator.cli.outermost import (
    broken_pipe,
    no_space,
    report_click,
    report_error,
    report_internal,
    unusable_home,
    unusable_path,
    with_near_name,
)
from orchestrator.core.base.errors import Interrupted, OrchestrateError, UsageError
from orchestrator.core.base.suggest import did_you_mean

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_COMMANDS = "orchestrator.cli.commands"
_OWN_OPTIONS = frozenset({"-h", "--help", "--version"})


class Verb(NamedTuple):
    """A command to come: its module in the folder of its section below ``cli/commands``, and the
    line that help shows for it.

    ``attribute``: what the command is called in its module, where that is not the verb's name.
    """

    name: str
    module: str
    section: str
    summary: str
    attribute: str = ""


_JOBS, _MACHINES, _RUNS, _NIGHTS = "Jobs", "Machines", "Runs", "Nights"
_SUITES, _PLANNING = "Suites", "Planning"
_SETUP, _MONITORING = "Configuration", "Monitoring"
VERBS = (
    Verb("run", "run", _JOBS, "Run a workload, or your own script."),
    Verb("plan", "plan", _JOBS, "Show exactly what a run would do."),
    Verb("exec", "exec", _JOBS, "Run one command on every node.", attribute="exec_"),
    Verb("sync", "sync", _JOBS, "Bring your project to every node."),
    Verb("export", "export", _JOBS, "Write a job as manifests for Kubernetes."),
    Verb("probe", "probe", _MACHINES, "Show what the machines have."),
    Verb("doctor", "doctor", _MACHINES, "Check the machines."),
    Verb("explain", "explain", _MACHINES, "Show where the ranks' environment came from."),
    Verb("connections", "connections", _MACHINES, "List and close connections that stay."),
    Verb("ps", "existing_runs", _RUNS, "List runs."),
    Verb("show", "existing_runs", _RUNS, "Show a run's result."),
    Verb("logs", "existing_runs", _RUNS, "Print or follow the logs of a run."),
    Verb("diagnose", "diagnose", _RUNS, "Name the cause in logs."),
    Verb("attach", "existing_runs", _RUNS, "Follow a run that another process coordinates."),
    Verb("tunnel", "tunnel", _RUNS, "Print ssh tunnels to the inference servers of a run."),
    Verb("ray", "ray", _RUNS, "Keep a Ray cluster up: up, status, down."),
    Verb("resume", "resume", _RUNS, "Continue a run."),
    Verb("stop", "existing_runs", _RUNS, "Stop a run and clean up behind it."),
    Verb("history", "history", _RUNS, "List past runs with their trend; export, import."),
    Verb("compare", "compare", _RUNS, "Compare two runs, figure by figure."),
    Verb("baseline", "baseline", _RUNS, "Keep runs that others are compared with."),
    Verb("serve", "serve", _RUNS, "Show all runs in a browser."),
    Verb("clean", "clean", _RUNS, "Remove what runs left on nodes and here."),
    Verb("suite", "suite", _SUITES, "Run a list of workloads, archive and publish the evidence."),
    Verb("migrate", "migrate", _SUITES, "Prove that work may move to new hardware."),
    Verb("nightly", "nightly", _NIGHTS, "Run a workload every night."),
    Verb("notify", "notify", _NIGHTS, "Notify people of runs and nights."),
    Verb("status", "status", _NIGHTS, "Show what runs, which nights are missing, and trends."),
    Verb("monitor", "monitor", _MONITORING, "Metrics, dashboards, alerts, load of experts."),
    Verb("model", "model", _PLANNING, "Predict time, memory and cost; studies of hardware."),
    Verb("drill", "drill", _SETUP, "Break things, measure what follows."),
    Verb("cluster", "cluster", _SETUP, "List and check inventories."),
    Verb("workload", "workload", _SETUP, "List and show workloads."),
    Verb("completion", "completion", _SETUP, "Print shell completion."),
)


class ReaderGone(Exception):
    """Nobody reads stdout any more."""


class LazyGroup(click.Group):
    """Knows its commands by a table. Options before any verb belong to the default verb."""

    def __init__(self, *args: Any, verbs: Iterable[Verb] = (), default: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._verbs = {verb.name: verb for verb in verbs}
        self._default = default

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self._verbs)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        verb = self._verbs.get(cmd_name)
        if verb is None:
            return None
        module = importlib.import_module(f"{_COMMANDS}.{verb.section.lower()}.{verb.module}")
        command = getattr(module, verb.attribute or verb.name)
        assert isinstance(command, click.Command)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self.with_verb(args))

    def with_verb(self, words: list[str]) -> list[str]:
        """``words`` with the default verb in front when they begin with one of its options."""
        if words and words[0].startswith("-") and words[0] not in _OWN_OPTIONS:
            return [self._default, *words]
        return words

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self._verbs:
            hint = did_you_mean(args[0], self._verbs)
            raise click.UsageError(f"no such command: {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Read the command line, which may show help: raises as :meth:`invoke` does."""
        with _reader_told():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises :class:`ReaderGone`, since click would make a broken pipe exit
        code 1, which means here that the job failed.
        """
        with _reader_told():
            return super().invoke(ctx)

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        sections = dict.fromkeys(verb.section for verb in self._verbs.values())
        for section in sections:
            with formatter.section(section):
                formatter.write_dl(
                    [(v.name, v.summary) for v in self._verbs.values() if v.section == section]
                )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        names = [name for name in self._verbs if name.startswith(incomplete)]
        items = [CompletionItem(name, help=self._verbs[name].summary) for name in names]
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]


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
    as_json = "--json" in words[: words.index("--") if "--" in words else None]
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # held back by `__main__`
        code = cli.main(args=words, prog_name="orchestrate", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        shown = with_near_name(error)
        if as_json:
            usage = UsageError(shown.format_message(), id="usage.command-line")
            return report_error(usage, as_json=True)
        return report_click(shown)
    except OrchestrateError as error:
        return report_error(error, as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        stopped = Interrupted("interrupted", id="interrupted")
        return report_error(stopped, as_json=as_json)
    except (BrokenPipeError, ReaderGone):
        return broken_pipe()
    except Exception as error:  # noqa: BLE001 - the outermost frame: nothing may escape as a traceback
        failure = unusable_path(error, words) or no_space(error) or unusable_home(error, os.environ)
        if failure is not None:
            return report_error(failure, as_json=as_json)
        return report_internal(error, os.environ, as_json=as_json)


def _open_closed_streams() -> None:
    """What was started without a standard stream (``>&-``) writes to nowhere, not into the next
    file that happens to get its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - kept


@contextmanager
def _reader_told() -> Iterator[None]:
    """A pipe that breaks inside is the reader of stdout who left, or a bug."""
    try:
        yield
    except BrokenPipeError as error:
        if _is_broken(sys.stdout):
            raise ReaderGone from error
        raise RuntimeError("a pipe broke, and it was not stdout") from error


def _is_broken(stream: TextIO) -> bool:
    """Whether the other end of ``stream`` is closed."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
