"""Which log lines ``orchestrate logs`` shows."""

from __future__ import annotations

import re
from collections.abc import Callable

from orchestrator.core.errors import UsageError
from orchestrator.core.nodeset import NodeSetError, expand
from orchestrator.view.log_lines import Source, parse_ranks


def selection(
    *, ranks: str | None, nodes: str | None, streams: str | None
) -> Callable[[Source], bool]:
    """A source passes if it meets every given choice. Raises :class:`UsageError`."""
    try:
        numbers = parse_ranks(ranks) if ranks is not None else None
        names = frozenset(expand(nodes)) if nodes is not None else None
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


def parse_grep(pattern: str | None) -> re.Pattern[str] | None:
    """The compiled pattern. Raises :class:`UsageError`."""
    try:
        return None if pattern is None else re.compile(pattern)
    except re.error as error:
        what = f"not a regular expression: {error}"
        raise UsageError(what, id="logs.grep", where="--grep") from None
