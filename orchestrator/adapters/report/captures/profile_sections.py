"""Profiles of ranks, as sections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.adapters.report.captures.shown import Shown, table_section, text_section
from orchestrator.core.base.figures import format_figure
from orchestrator.core.captures.profile import (
    COMMUNICATION,
    GAPS,
    ProfileFigures,
    RankProfile,
    profile_figures,
)
from orchestrator.core.captures.recorded import NodeRecord
from orchestrator.parsing.replies import report_sections as given

MAX_KERNELS = 25
HEADINGS = ("name", "what", "runs", "time", "share", "mean duration")
SHARES_NOTE = (
    "Of what runs at one moment each gets an equal part of it: the shares add up to the time from "
    "the first event to the end of the last."
)
KEPT_OUT = (
    "What was profiled is in no measured window, and the script leaves it out of its figures."
)
NOT_KEPT_OUT = (
    "What was profiled is in no measured window; figures that the script times by itself contain "
    "it (orchestrate_kit.profiling() would tell it)."
)


def show_profile(records: Sequence[NodeRecord]) -> Shown:
    """Of all ranks that were profiled; the line and the figures are of the first."""
    found = [
        (record.node, profile, figures)
        for record in records
        for profile in record.profiles
        if (figures := profile_figures(profile)) is not None
    ]
    sections = [part for one in found for part in _sections(*one)]
    if not found:
        return Shown(sections, "no rank", {"ranks": 0})
    node, profile, first = found[0]
    shares = {name: seconds / first.seconds for name, seconds in first.categories.items()}
    told = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    return Shown(
        sections,
        line=f"rank {profile.rank} on {node}, {profile.steps} steps: {told}",
        figures={"ranks": len(found)}
        | {f"{name}_fraction": share for name, share in shares.items()},
    )


def _sections(node: str, profile: RankProfile, found: ProfileFigures) -> Iterator[given.Section]:
    who = f"Profile of rank {profile.rank} on {node}"
    yield given.BarsSection(
        kind="bars",
        title=who,
        unit="s",
        bars=[
            given.Bar(label=name, value=seconds, text=_share(seconds, found))
            for name, seconds in found.categories.items()
        ],
        note=SHARES_NOTE,
    )
    yield table_section(f"{who}: kernels", HEADINGS, _kernel_rows(found), _note(found))
    yield text_section("", f"{_what(profile)} {KEPT_OUT if profile.asked else NOT_KEPT_OUT}")


def _share(seconds: float, found: ProfileFigures) -> str:
    return f"{format_figure(seconds, 's')}, {seconds / found.seconds:.1%}"


def _kernel_rows(found: ProfileFigures) -> Iterator[Sequence[str]]:
    for kernel in found.kernels[:MAX_KERNELS]:
        mean = format_figure(kernel.alone_s / kernel.count, "s")
        share = f"{kernel.seconds / found.seconds:.1%}"
        seconds = format_figure(kernel.seconds, "s")
        yield kernel.name[:200], kernel.category, str(kernel.count), seconds, share, mean
    rest = found.kernels[MAX_KERNELS:]
    if rest:
        took, runs = sum(k.seconds for k in rest), sum(k.count for k in rest)
        share = f"{took / found.seconds:.1%}"
        yield f"{len(rest)} others", "", str(runs), format_figure(took, "s"), share, ""
    idle = found.categories[GAPS]
    share = f"{idle / found.seconds:.1%}"
    yield GAPS, "nothing runs", str(found.gaps), format_figure(idle, "s"), share, ""


def _note(found: ProfileFigures) -> str:
    longest = format_figure(found.longest_gap_s, "s")
    moved = found.categories[COMMUNICATION]
    hidden = f" Of communication {format_figure(found.hidden_s, 's')} had company." if moved else ""
    return f"Longest gap: {longest}.{hidden}"


def _what(profile: RankProfile) -> str:
    of = "kernels and copies by stream" if profile.device == "gpu" else "operators by thread"
    left = f" {profile.dropped} events beyond the bound are not in it." if profile.dropped else ""
    return f"{profile.tool}, {profile.steps} steps in {profile.seconds:.2f} s, {of}.{left}"
