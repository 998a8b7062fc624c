"""The report as one HTML file that needs no network: charts are inline SVG, all is escaped."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from jinja2 import BytecodeCache, Environment, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket
from markupsafe import Markup

from orchestrator.adapters.report.document import (
    Report,
    gate_text,
    metric_figure,
    one_line,
    verdict_text,
)
from orchestrator.adapters.report.drawing import charts, plots, trend_chart
from orchestrator.adapters.store.atomic_files import write_atomic


def render_html(report: Report) -> str:
    """The whole document."""
    return render_template("report.html.jinja", report=report)


def render_template(name: str, **values: object) -> str:
    """A document of this folder; all values are escaped."""
    return open_templates().get_template(name).render(**values)


def open_templates(*more: Path) -> Environment:
    """The templates of this folder and of ``more``: all values are escaped."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader([*more, Path(__file__).parent]),
        bytecode_cache=_CompiledBesideModules(),
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_made_harmless,
    )
    environment.globals.update(geometry=charts, shape=trend_chart, plots=plots)
    environment.filters.update(
        figure=metric_figure, gate=gate_text, verdict=verdict_text, link=_relative_link
    )
    environment.filters.update(
        lines_plot=plots.lines_plot,
        heat_plot=plots.heat_plot,
        bars_plot=plots.bars_plot,
        spread_plot=plots.spread_plot,
    )
    return environment


def _made_harmless(value: object) -> object:
    """Every value passes here before it is escaped: controls and direction overrides go. Markup is
    what a template of ours made.
    """
    return one_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value


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
