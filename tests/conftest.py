"""What holds for every test: a state directory of its own, limits that fit the machine, marks that
are true, no silent skips.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import pytest_timeout

from tests.time_limits import Measured, assert_within, measure_slowdown

# Programs with torch in them run beside each other here: with a thread per core each they would
# spend their time waiting for each other. Set before anything imports torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Where there is no GPU, Triton's kernels run in its interpreter, which is chosen at its import.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

TESTS = Path(__file__).parent
# Folders whose files take long, the longest first.
LONGEST = "hosts workloads bootstrap security contracts engine cli simulation bench".split()
# Marks of tests that need more than this process and a moment; `scripts/test fast` leaves them out.
NEEDS_MORE = ("hosts", "processes", "slow")
HARDWARE = "hardware: "  # how the reason of a skip starts that continuous integration accepts


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--promises FILE`` of ``scripts/bench promises``."""
    told = "append each measured time that the product promises, as a line of JSON"
    parser.addoption("--promises", type=Path, metavar="FILE", help=told)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Takes (what, seconds, promised seconds): recorded as it is, held here to a limit that grows
    with the machine's load. Tests that ask for it are marked ``promise``.
    """
    record: Path | None = request.config.getoption("promises")

    def take(what: str, seconds: float, promised_s: float) -> None:
        sys.stdout.write(f"measured: {what}: {seconds:.2f} s (promised {promised_s:g} s)\n")
        line = {"what": what, "seconds": seconds, "promised_s": promised_s}
        if record:
            with record.open("a") as file:
                file.write(json.dumps({**line, "test": request.node.nodeid}) + "\n")
        assert_within(what, seconds, promised_s)

    return take


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: pytest_timeout.Settings) -> object:
    """A test may take as long as its steps do on a machine with other work."""
    if needs_more(item):
        grown = settings.timeout * measure_slowdown()
        settings = settings._replace(timeout=grown)
    return pytest_timeout.pytest_timeout_set_timer(item, settings)


def needs_more(item: pytest.Item) -> bool:
    """Whether the test needs other processes, or takes long."""
    return any(item.get_closest_marker(mark) for mark in NEEDS_MORE)


@pytest.fixture(scope="session", autouse=True)
def private_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the state and the settings of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("ORCHESTRATE_")]:
            patch.delenv(name)
        patch.setenv("ORCHESTRATE_HOME", str(tmp_path_factory.mktemp("orchestrate-home")))
        yield


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """What a command did to signals, as if its process were about to end, is undone."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def pytest_collection() -> None:
    """Modules and tests are made to stay: to look for garbage among them takes a fifth longer."""
    gc.disable()


def pytest_collection_finish() -> None:
    """What is there now is never looked at again."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first: a file stays on one worker, and at the end no worker is left
    with a long one while the others have nothing to do.
    """
    items.sort(key=order_of)
    for item in items:
        if "measured" in getattr(item, "fixturenames", ()):
            item.add_marker("promise")


def order_of(item: pytest.Item) -> int:
    """By the folder that it is in."""
    folder = item.path.relative_to(TESTS).parts[0]
    return LONGEST.index(folder) if folder in LONGEST else len(LONGEST)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In continuous integration a missing tool is a failure."""
    report = yield
    refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for modules that skip themselves."""
    report = yield
    refuse_skip(report)
    return report


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure when CI is set, unless it is for want of hardware."""
    if not os.environ.get("CI") or not report.skipped or hasattr(report, "wasxfail"):
        return
    place, line, reason = report.longrepr if isinstance(report.longrepr, tuple) else ("", 0, "")
    if not reason.removeprefix("Skipped: ").startswith(HARDWARE):
        report.outcome = "failed"
        report.longrepr = f"{place}:{line}: skipped in continuous integration: {reason}"
