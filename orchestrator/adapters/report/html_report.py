"""The report as one HTML file that needs no network: charts are inline SVG, all is escaped."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from jinja2 import BytecodeCache, Environment, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket

from orchestrator.adapters.report import charts, plots, trend_chart
from orchestrator.adapters.report.document import (
    Report,
    gate_text,
    metric_figure,
    one_line,
    verdict_text,
)
from orchestrator.adapters.store.atomic_files import write_atomic


def render_html(report: Report) -> str:
    """The whole document."""
    return render_template("report.html.jinja", report=report, plots=plots)


def render_template(name: str, **values: object) -> str:
    """A document of this folder; all values are escaped."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader(Path(__file__).parent),
        bytecode_cache=_CompiledBesideModules(),
        trim_blocks=True,
        lstrip_blocks=True,
        # Every value passes here before it is escaped: controls and direction overrides go.
        finalize=lambda value: one_line(value) if isinstance(value, str) else value,
    )
    environment.filters.update(
        figure=metric_figure, gate=gate_text, verdict=verdict_text, link=_relative_link
    )
    environment.filters.update(
        lines_plot=plots.lines_plot,
        heat_plot=plots.heat_plot,
        bars_plot=plots.bars_plot,
        spread_plot=plots.spread_plot,
    )
    return environment.get_template(name).render(geometry=charts, shape=trend_chart, **values)


class _CompiledBesideModules(BytecodeCache):
    """Compiled templates where Python keeps compiled modules, under the same conditions: compiling
    takes as long as all else that a report needs. A changed template is compiled anew.
    """

    folder = Path(__file__).parent / "__pycache__"

    def load_bytecode(self, bucket: Bucket) -> None:
        with suppress(OSError), self._path(bucket).open("rb") as file:
            bucket.load_bytecode(file)

    def dump_bytecode(self, bucket: Bucket) -> None:
        if not sys.dont_write_bytecode:
            with suppress(OSError):
                write_atomic(self._path(bucket), bucket.bytecode_to_string())

    def _path(self, bucket: Bucket) -> Path:
        return self.folder / f"{bucket.key}.{sys.implementation.cache_tag}.jinja"


def _relative_link(path: str) -> str:
    """A relative path as an address: whatever it is called, it stays a path."""
    return "./" + quote(path, safe="/")
