"""What a run captured of its GPUs, added to its result."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.adapters.store.layout import RunFolder
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.result import Result


def with_captures(result: Result, folder: RunFolder, state: RunState) -> Result:
    """``result`` with what came of each capture that was asked for, of every node that had ranks.

    What could not be captured is a warning, never a failure.
    """
    captures = state.request.captures
    nodes = {node.name: node.name in result.outputs for node in result.used}
    if not captures or not nodes:
        return result
    # Reads and draws; a run without captures needs none of it.
    from orchestrator.adapters.report.captures.summarise import summarise_captures

    try:
        found = summarise_captures(folder, captures, nodes)
    except OSError as error:
        warning = f"captures not summarised: {error}"
        return replace(result, warnings=(*result.warnings, warning))
    told = [f"capture {one.kind}: {why}" for one in found for why in one.reasons]
    return replace(result, captures=found, warnings=(*result.warnings, *told))
