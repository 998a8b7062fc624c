"""The figures of a study as PDF and PNG: for print in grey, and for eyes that see few colours.

Runtimes differ in hatching as well as in colour; colours are of Okabe and Ito's set, which people
with any kind of colour blindness can tell apart (jfly.uni-koeln.de/color, 2008).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.adapters.costs.study_files import FOOTNOTE, layout_text
from orchestrator.adapters.extras import install_command
from orchestrator.core.base.errors import UsageError
from orchestrator.core.costs.study.study_model import Outcome, StudyRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "+++")
SUFFIXES = (".pdf", ".png")
DOTS_PER_INCH = 200
WIDTH_IN, HEIGHT_IN = 7.2, 3.4  # two columns of a paper
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "pdf.fonttype": 42,  # text stays text
    "hatch.linewidth": 0.6,
}
Figures = Callable[[StudyRow], float]


def require_matplotlib() -> None:
    """Raises :class:`UsageError` where it is missing; to be called before a study is computed."""
    if find_spec("matplotlib") is None:
        raise UsageError(
            "figures need matplotlib, which is not installed",
            id="model.figures",
            remedy=f"{install_command('report')}, or --no-figures",
        )


def draw_figures(outcome: Outcome, folder: Path, said: Callable[[str], None]) -> list[Path]:
    """Each figure in both formats; needs matplotlib, see :func:`require_matplotlib`."""
    import matplotlib as mpl

    mpl.use("Agg")
    written: list[Path] = []
    figures = list(_figures(outcome))
    with mpl.rc_context(STYLE):
        for number, (name, draw) in enumerate(figures, start=1):
            written += _save(draw, folder / name)
            said(f"figure {number} of {len(figures)}: {name}")
    return written


def _save(draw: Callable[[], Figure], stem: Path) -> Iterator[Path]:
    figure = draw()
    for suffix in SUFFIXES:
        path = stem.with_suffix(suffix)
        # Without a date: equal inputs give equal files.
        metadata: dict[str, Any] = {"CreationDate": None} if suffix == ".pdf" else {}
        figure.savefig(path, dpi=DOTS_PER_INCH, bbox_inches="tight", metadata=metadata)
        yield path


def _figures(outcome: Outcome) -> Iterator[tuple[str, Callable[[], Figure]]]:
    panels: tuple[tuple[str, str, Figures], ...] = (
        ("throughput", "predicted tok/s", lambda row: row.tokens_per_s),
        ("communication", "communication, % of a step", lambda row: 100 * row.communication_share),
        ("cost", "USD per million tokens", lambda row: row.usd_per_million),
    )
    for name, label, value in panels:
        yield name, lambda value=value, label=label: _by_system(outcome, value, label)  # type: ignore[misc]
    yield "cross-system", lambda: _cross_system(outcome)


def _by_system(outcome: Outcome, value: Figures, label: str) -> Figure:
    """A panel a system, a group of bars a strategy, a bar a runtime."""
    figure, panels = _new_figure(len(outcome.study.systems))
    for panel, system in zip(panels, outcome.study.systems, strict=True):
        rows = [row for row in outcome.rows if row.system == system.name]
        groups = [layout_text(row) for row in rows if row.runtime == rows[0].runtime]
        _bars(panel, outcome, rows, groups, value)
        panel.set_title(system.name, fontsize=9)
    panels[0].set_ylabel(label)
    _legend(figure, panels[0])
    return figure


def _cross_system(outcome: Outcome) -> Figure:
    """The last strategy on all systems: tokens/s, efficiency and cost side by side."""
    strategy = outcome.study.strategies[-1]
    figure, panels = _new_figure(3)
    rows = [row for row in outcome.rows if row.strategy is strategy]
    fits = {row.system: row.fits for row in rows}
    systems = [f"{name}{'' if fits[name] else '*'}" for name in fits]
    kinds: tuple[tuple[str, Figures], ...] = (
        (f"tok/s, {strategy}", lambda row: row.tokens_per_s),
        ("scaling efficiency, %", lambda row: 100 * row.efficiency),
        ("USD per million tokens", lambda row: row.usd_per_million),
    )
    for panel, (title, value) in zip(panels, kinds, strict=True):
        _bars(panel, outcome, rows, systems, value)
        panel.set_title(title, fontsize=9)
    _legend(figure, panels[0])
    return figure


def _new_figure(panels: int) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)
    return figure, list(axes[0])


def _bars(
    panel: Axes, outcome: Outcome, rows: Sequence[StudyRow], groups: Sequence[str], value: Figures
) -> None:
    runtimes = [runtime.name for runtime in outcome.study.runtimes]
    width = 0.8 / len(runtimes)
    for number, runtime in enumerate(runtimes):
        heights = [value(row) for row in rows if row.runtime == runtime]
        places = [
            place + width * (number - (len(runtimes) - 1) / 2) for place in range(len(groups))
        ]
        look = number % len(COLORS)
        panel.bar(
            places, heights, width, label=runtime, color=COLORS[look], hatch=HATCHES[look],
            edgecolor="black", linewidth=0.5,
        )  # fmt: skip
    panel.set_xticks(range(len(groups)), groups, rotation=40, ha="right", rotation_mode="anchor")
    panel.tick_params(axis="x", length=0)


def _legend(figure: Figure, panel: Axes) -> None:
    figure.supxlabel(FOOTNOTE, fontsize=7, x=0.99, ha="right")
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
