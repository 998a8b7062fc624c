"""The report as one HTML file that needs no network: charts are inline SVG, all is escaped."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from orchestrator.adapters.report import charts, plots
from orchestrator.adapters.report.document import Report, figure, gate, one_line, verdict


def render_html(report: Report) -> str:
    """The whole document."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        # Every value passes here before it is escaped: controls and direction overrides go.
        finalize=lambda value: one_line(value) if isinstance(value, str) else value,
    )
    environment.filters.update(figure=figure, gate=gate, verdict=verdict, link=_link)
    environment.filters.update(
        lines_plot=plots.lines_plot,
        heat_plot=plots.heat_plot,
        bars_plot=plots.bars_plot,
        spread_plot=plots.spread_plot,
    )
    template = environment.get_template("report.html.jinja")
    return template.render(report=report, geometry=charts, plots=plots)


def _link(path: str) -> str:
    """A relative path as an address: whatever it is called, it stays a path."""
    return "./" + quote(path, safe="/")
