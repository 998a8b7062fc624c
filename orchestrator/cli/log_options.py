"""Which log lines ``orchestrate logs`` shows."""

from __future__ import annotations

import re
from collections.abc import Callable

from orchestrator.adapters.store.layout import RunFolder
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.nodeset import NodeSetError, expand_nodeset, fold_nodeset
from orchestrator.view.tables.plan_text import number_ranges
from orchestrator.view.terminal.log_lines import Source, parse_ranks, source_of


def select_sources(
    *, ranks: str | None, nodes: str | None, streams: str | None
) -> Callable[[Source], bool]:
    """A source passes if it meets every given choice. Raises :class:`UsageError`."""
    try:
        numbers = parse_ranks(ranks) if ranks is not None else None
        names = frozenset(expand_nodeset(nodes)) if nodes is not None else None
    except NodeSetError as error:
        raise UsageError(str(error), id="logs.nodes", where="--nodes") from None
    except ValueError as error:
        raise UsageError(str(error), id="logs.ranks", where="--ranks") from None

    def wanted(source: Source) -> bool:
        return (
            (numbers is None or source.rank in numbers)
            and (names is None or source.node in names)
            and (streams is None or source.stream == streams)
        )

    return wanted


def require_match(folder: RunFolder, wanted: Callable[[Source], bool]) -> None:
    """Raises :class:`UsageError` that tells what there is, if the run has logs, but none that is
    ``wanted``: an empty answer would look like silent ranks.
    """
    found = [source for log in folder.log_files() if (source := source_of(*log[1:])) is not None]
    if not found or any(map(wanted, found)):
        return
    nodes = fold_nodeset({source.node for source in found})
    numbers = {source.rank for source in found if source.rank is not None}
    others = sorted({source.label for source in found if source.rank is None})
    told = [f"ranks {number_ranges(list(numbers))}"] if numbers else []
    raise UsageError(
        f"no logs of run {folder.run_id} match --ranks, --nodes and --stdout or --stderr",
        id="logs.nothing",
        where=folder.logs,
        why=f"there are logs of {', '.join([*told, *others])} on {nodes}",
        remedy=f"orchestrate logs {folder.run_id}, without the choice that does not match",
    )


def parse_grep(pattern: str | None) -> re.Pattern[str] | None:
    """The compiled pattern. Raises :class:`UsageError`."""
    try:
        return None if pattern is None else re.compile(pattern)
    except re.error as error:
        what = f"not a regular expression: {error}"
        raise UsageError(what, id="logs.grep", where="--grep") from None
