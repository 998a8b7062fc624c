"""Pages and parts of them from templates; the style and script that come with them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

from orchestrator.adapters.report.html_report import open_templates
from orchestrator.adapters.web.runs.live_log import LogLine
from orchestrator.adapters.web.runs.run_view import TONES, RunPageView
from orchestrator.core.base.figures import format_duration, format_figure, format_number

HERE = Path(__file__).parent
# What is filled in is escaped.
_LINE = Markup('<div class="line {}"><b>{}</b> {}</div>')
RUN_PARTS = ("head", "facts", "charts", "nodes")
TYPES = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}


class Rendering:
    """All values are escaped, and freed of controls, by the environment."""

    def __init__(self) -> None:
        self._environment = open_templates(HERE / "templates")
        self._environment.filters.update(
            moment=_format_moment, duration=format_duration, number=format_number
        )
        self._environment.globals.update(value=format_figure, tones=TONES)
        style = self._environment.get_template("style.css.jinja").render()
        static = {name: (HERE / "static" / name).read_bytes() for name in TYPES}
        static["page.css"] = style.encode() + static["page.css"]
        self.static: Mapping[str, bytes] = static
        digest = hashlib.sha256(b"".join(static.values())).hexdigest()[:12]
        self._environment.globals.update(version=digest)

    def page(self, name: str, **values: object) -> str:
        """A whole page."""
        return self._environment.get_template(f"{name}.html.jinja").render(**values)

    def run_parts(self, view: RunPageView) -> Mapping[str, str]:
        """The parts of a run's page, by the id of the element that holds each."""
        return {part: self.page(f"run_{part}", view=view) for part in RUN_PARTS}

    def log_lines(self, lines: Sequence[LogLine]) -> Sequence[str]:
        """Each line as an element."""
        return [_LINE.format(line.stream, line.source, line.text) for line in lines]


def _format_moment(at: float | None) -> str:
    return "" if not at else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"
