"""The page in a real browser: a live run, a failure, two runs compared; nothing leaves the machine,
and what runs write is text.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.adapters.catalog.bundled import bundled_kit
from orchestrator.core.base.codec import to_json
from tests.cli.local_desk import open_local_desk
from tests.cli.runs_on_disk import begin
from tests.core.world import request
from tests.hosts.running import Desk, Job, wait_until
from tests.time_limits import scaled
from tests.web.served import Served, require_browser, serve

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.processes, pytest.mark.slow]

HOSTILE = '"><img id=injected src=x onerror=alert(1)>'
# Two ranks report a loss and write lines until a file says how to end.
TRAIN = f"""
import os, sys, time
from pathlib import Path

sys.path.insert(0, {str(bundled_kit().parent)!r})
import orchestrate_kit as kit

rank, word = int(os.environ["RANK"]), Path(sys.argv[1])
step = 0
while not word.exists():
    step += 1
    kit.progress(step, 1000)
    kit.metric("loss", 2.0 / step, unit="nats", step=step)
    print(f"rank {{rank}} step {{step}} <b id=injected>\\x1b[31m</b>", flush=True)
    time.sleep(0.1)
if word.read_text() == "fail" and rank == 1:
    print("RuntimeError: <img src=x onerror=alert(1)> the data is gone", file=sys.stderr)
    sys.exit(3)
kit.metric("speed", 100.0 + step % 2, unit="tok/s")
"""


@dataclass(frozen=True, slots=True)
class Opened:
    """A browser's page, the server, the desk that starts runs, and every address asked for."""

    page: Page
    served: Served
    desk: Desk
    asked: list[str]

    def see(self, path: str) -> Page:
        self.page.goto(self.served.address + path)
        return self.page

    def train(self, name: str) -> tuple[Job, Path]:
        """A run under way, and the file whose word ends it."""
        word = self.desk.project / name
        return self.desk.start("train.py", str(word)), word

    def finish(self, name: str, word: str, code: int) -> Job:
        """A run with a curve and lines that has ended as ``word`` says, with this exit code."""
        job, file = self.train(name)
        metrics = self.desk.folder(job.run) / "metrics.jsonl"
        wait_until("a curve", lambda: metrics.exists() and metrics.read_text().count("\n") > 8)
        file.write_text(word)
        assert job.end().code == code
        return job

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """One browser and one server for all tests here."""
    chromium = require_browser()
    from playwright.sync_api import sync_playwright

    root = tmp_path_factory.mktemp("page")
    with open_local_desk(root, 2) as desk, serve(desk.home) as served, sync_playwright() as play:
        desk.script("train.py", TRAIN)
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = play.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page()
        page.set_default_timeout(scaled(30) * 1000)
        asked: list[str] = []
        page.on("request", lambda sent: asked.append(sent.url))
        page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
        yield Opened(page, served, desk, asked)
        browser.close()


def test_a_live_run_appears_and_moves(opened: Opened) -> None:
    """The list shows it without being loaded again; its chart and its log follow."""
    page = opened.see("")
    assert page.locator("#list table").count() == 0
    job, word = opened.train("one")

    page.locator(f"a[href='/runs/{job.run}']").first.click()
    page.locator("#charts polyline").first.wait_for(state="attached")
    page.locator("#log .line", has_text="rank 1 step").first.wait_for(state="attached")
    first = _points(page), page.locator("#log .line").count()
    wait_until("the chart moves", lambda: _points(page) > first[0])
    wait_until("the log follows", lambda: page.locator("#log .line").count() > first[1])
    at_end = "e => e.scrollHeight - e.scrollTop - e.clientHeight < 40"
    assert page.locator("#log").evaluate(at_end)
    page.locator("#log-filter").fill("n1/0")
    assert page.locator("#log .line:visible", has_text="n2/1").count() == 0

    assert "running" in opened.text("#head")
    assert "of 1,000 step" in opened.text("#facts")
    word.write_text("done")
    wait_until("the end is shown", lambda: "succeeded" in opened.text("#head"))
    assert job.end().code == 0


def test_a_failure_shows_its_cause(opened: Opened) -> None:
    """Which rank, how, its last line as text, and what to do next."""
    job, word = opened.train("two")
    job.wait_for("RankStarted", 2)
    opened.see(f"runs/{job.run}")
    opened.page.locator("#log .line", has_text="rank 1 step").first.wait_for(state="attached")
    word.write_text("fail")
    wait_until("the cause is shown", lambda: opened.page.locator("#head .panel.bad").count())
    wait_until("the end is shown", lambda: "failed" in opened.text("#head h1"))
    shown = opened.text("#head .panel.bad")

    assert re.search(r"rank 1 on n2 .*3", shown), shown
    assert "<img src=x onerror=alert(1)> the data is gone" in shown
    assert "orchestrate logs" in shown
    assert "n2" in opened.text("#nodes")
    assert job.end().code == 1


def test_what_ranks_write_is_text(opened: Opened) -> None:
    """Markup in lines makes no element, and no escape is left."""
    page = opened.see(f"runs/{opened.finish('text', 'done', 0).run}")
    lines = page.locator("#log .line", has_text="<b id=injected>")
    lines.first.wait_for(state="attached")

    assert page.locator("#injected").count() == 0
    assert page.locator("#log img").count() == 0
    assert "\x1b" not in lines.first.inner_text()
    assert page.evaluate("document.querySelectorAll('script').length") == 1


def test_hostile_names_and_lines_are_text(opened: Opened) -> None:
    """Of a cluster that is called like markup, and of a rank that wrote a line of ten megabytes."""
    asked = request("a")
    asked = replace(asked, cluster=replace(asked.cluster, name=HOSTILE))
    folder = begin(opened.desk.home, "hostile")
    try:
        folder.request.write_text(json.dumps(to_json(asked)))
        folder.node_logs("a").mkdir()
        log = folder.log("a", "rank-0.out")
        log.write_text("begin\n")
        page = opened.see("runs/hostile")
        log.write_text("begin\n" + HOSTILE * (10_000_000 // len(HOSTILE)) + "\nthe end\n")
        page.locator("#log .line", has_text="the end").wait_for(state="attached")

        assert HOSTILE in opened.text("#head h1")
        assert "not shown" in opened.text("#log")
        assert len(opened.text("#log")) < 100_000
        opened.see("?q=hostile")
        wait_until("it is listed", lambda: _reload(page) and HOSTILE in opened.text("#list"))
        assert page.locator("#injected").count() == 0
    finally:
        shutil.rmtree(folder.path)  # its coordinator is this process, which nothing may stop


def test_two_runs_compare(opened: Opened) -> None:
    opened.finish("three", "done", 0)
    opened.finish("four", "done", 0)
    page = opened.see("?state=succeeded")
    boxes = page.locator("#list input[type=checkbox]")
    wait_until("both runs are listed", lambda: _reload(page) and boxes.count() >= 2)
    boxes.nth(0).check()
    boxes.nth(1).check()
    page.get_by_role("button", name="Compare two").click()
    page.locator("main h1").wait_for()

    assert "against" in opened.text("main h1")
    assert "speed" in opened.text("main")
    assert page.locator("svg polyline").count() == 2


def test_nodes_show_their_runs(opened: Opened) -> None:
    """A mark for each of both nodes and each run; those where a rank failed stand out."""
    failed = opened.finish("five", "fail", 1)
    page = opened.see("nodes")
    runs = len(list(opened.desk.folder(failed.run).parent.iterdir()))
    mark = page.locator(f".spots a.bad[href='/runs/{failed.run}']")

    wait_until("the failed run is marked", lambda: _reload(page) and mark.count() == 1)
    assert page.locator("#list tbody tr").count() == 2
    assert page.locator(".spots a").count() == 2 * runs


@pytest.mark.parametrize(
    "path", ["", "nodes", "nights", "trends", "compare", "suites", "login", "runs/none"]
)
def test_pages_fit_a_phone_and_a_keyboard(opened: Opened, path: str) -> None:
    """Nothing is wider than the screen, every control has a name, and the first stop of the Tab
    key skips the navigation.
    """
    page = opened.page
    page.set_viewport_size({"width": 360, "height": 640})
    opened.see(path)
    unnamed = page.evaluate(
        "[...document.querySelectorAll('input:not([type=hidden]), select, button, a')].filter(e => "
        "!(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim())).length"
    )
    wide = page.evaluate("document.documentElement.scrollWidth")
    page.keyboard.press("Tab")
    focused = page.evaluate("document.activeElement.textContent")
    page.set_viewport_size({"width": 1280, "height": 800})

    assert (unnamed, focused) == (0, "Skip to content")
    assert wide <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(opened: Opened, scheme: str) -> None:
    """WCAG AA: 4.5 to 1 of every colour of text on every background that it stands on."""
    page = opened.page
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    opened.see("")
    names = ["ink", "soft", "good", "bad", "odd", "c0", "paper", "panel"]
    colors = {
        name: page.evaluate(
            "name => { const e = document.createElement('i'); e.style.color = `var(--${name})`; "
            "document.body.append(e); const c = getComputedStyle(e).color; e.remove(); "
            "return c.match(/[0-9]+/g).map(Number) }",
            name,
        )
        for name in names
    }
    ratios = {
        (text, back): _contrast(colors[text], colors[back])
        for text in names[:-2]
        for back in names[-2:]
    }

    assert {pair: round(ratio, 2) for pair, ratio in ratios.items() if ratio < 4.5} == {}


def test_no_request_left_the_machine(opened: Opened) -> None:
    """Of everything that the tests before this one loaded. The last test of this module."""
    assert len(opened.asked) > 20
    assert [url for url in opened.asked if not url.startswith(opened.served.address)] == []


def _points(page: Page) -> int:
    points = page.locator("#charts polyline").first.get_attribute("points")
    return len((points or "").split())


def _reload(page: Page) -> bool:
    page.reload()
    return True


def _contrast(a: list[int], b: list[int]) -> float:
    """By WCAG 2.2, https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio."""
    light, dark = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: list[int]) -> float:
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (value / 255 for value in color[:3])
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
