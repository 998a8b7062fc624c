"""What another tool said about the same server: metrics, a document, a section. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..peers.comparison import Comparison, Pair
from .figures import Figure

SCHEMA_VERSION = 1
RATES = {"requests_per_s": "requests/s", "output_tokens_per_s": "tok/s"}


def peer_figures(comparison: Comparison) -> Iterator[Figure]:
    """(name, value, unit): the tool's figures, under its name."""
    for pair in comparison.pairs:
        yield f"{comparison.tool.name}_{pair.name}", pair.theirs, RATES.get(pair.name, "s")


def peer_document(comparison: Comparison) -> dict[str, Any]:
    """`cross_check.json`: latencies in seconds, ``apart`` as a part of the tool's figure, ``drift``
    as a part of our first one.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": comparison.tool.name,
        "definitions": comparison.tool.definition,
        "requests": {
            "asked": comparison.asked,
            "completed": comparison.theirs.completed,
            "failed": comparison.theirs.failed,
        },
        "figures": {
            pair.name: {
                "ours": pair.ours,
                "theirs": pair.theirs,
                "again": pair.again,
                "apart": pair.apart,
                "drift": pair.drift,
            }
            for pair in comparison.pairs
        },
    }


def peer_section(comparison: Comparison) -> dict[str, Any]:
    """Both figures side by side; also on the terminal."""
    tool, theirs = comparison.tool, comparison.theirs
    columns = ("figure", "ours", tool.name, "ours again", "ours above it", "ours, second by first")
    note = (
        f"both by the definitions of {tool.definition}, one load after the other; what ours differ "
        "from each other is the server and the machine"
    )
    if theirs.failed or theirs.completed != comparison.asked:
        note += f"; of its {comparison.asked} requests {theirs.completed} succeeded"
    return {
        "kind": "table",
        "title": f"Cross-check with {tool.name}",
        "columns": [{"name": columns[0]}, *({"name": n, "right": True} for n in columns[1:])],
        "rows": [[{"text": text} for text in _row(pair)] for pair in comparison.pairs],
        "note": note,
        "terminal": True,
    }


def _row(pair: Pair) -> Iterator[str]:
    yield pair.name.replace("_", " ").replace(" per s", "/s")
    for value in (pair.ours, pair.theirs, pair.again):
        yield f"{value:.5g}" if pair.name in RATES else f"{value * 1e3:.4g} ms"
    for share in (pair.apart, pair.drift):
        yield "-" if share is None else f"{share:+.1%}"
