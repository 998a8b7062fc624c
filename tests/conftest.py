"""What holds for every test: a state directory of its own, limits that fit the machine, marks that
are true, no silent skips.
"""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import pytest
import pytest_timeout
from hypothesis import HealthCheck, settings

from tests.time_limits import Measured, assert_within, measure_slowdown, share_measurements

# Programs with torch in them run beside each other here: with a thread per core each they would
# spend their time waiting for each other. Set before anything imports torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Shells start what is to run in the background with interrupts ignored, nohup with hang-ups, and
# programs inherit that.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# Where there is no GPU, Triton's kernels run in its interpreter, which is chosen at its import.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Agents are started as `python3`, hundreds of times: a version manager's script of that name takes
# longer than the agent behind it.
OWN_PYTHON = Path(sys.base_prefix, "bin")
if (OWN_PYTHON / "python3").exists():
    os.environ["PATH"] = f"{OWN_PYTHON}{os.pathsep}{os.environ['PATH']}"

TESTS = Path(__file__).parent
# What takes long, the longest first: one file of many minutes, then folders. Tests of a file follow
# each other, so that a long one that begins late keeps all others waiting. Folders of one group
# take turns: tests on hosts wait most of the time, and programs that import torch do not.
LONGEST = (
    ("hosts/network/test_rounds.py",),
    ("hosts", "workloads"),
    *(("bootstrap",), ("security",), ("contracts",), ("engine",), ("cli",), ("simulation",)),
    *(("nightly",), ("suite", "migration", "web", "kubernetes", "monitoring")),
    *(("history",), ("bench",), ("parsing",)),
)
# Marks of tests that need more than their own process and a moment; --fast leaves them out.
NEEDS_MORE = ("hosts", "processes", "slow")
MODULE_MARKS = re.compile(r"^pytestmark = (\[.*?^\]|[^\n]*)", re.MULTILINE | re.DOTALL)
# What a test without such a mark does not do, as Python's audit events call it.
STARTS = frozenset(
    "os.fork os.forkpty os.posix_spawn socket.bind socket.connect subprocess.Popen".split()
)
LONGEST_TEST_S = 600.0  # on whatever machine; pyproject.toml ends a worker that is stuck beyond it
# How the reason of a skip starts that continuous integration accepts.
ACCEPTED_SKIPS = ("hardware: ", "not in Debian: ")


# How long an example takes says what else the machine does.
settings.register_profile("any load", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any load")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--fast`` of ``scripts/test fast``, ``--promises FILE`` of ``scripts/bench promises``."""
    told = "only tests that need no other process and no time, with fewer examples of each property"
    parser.addoption("--fast", action="store_true", help=told)
    told = "append each measured time that the product promises, as a line of JSON"
    parser.addoption("--promises", type=Path, metavar="FILE", help=told)


def pytest_configure(config: pytest.Config) -> None:
    """What ``--fast`` leaves out: by marks, so that no list of names is to be kept."""
    if config.getoption("fast"):
        config.option.markexpr = " and ".join(f"not {mark}" for mark in NEEDS_MORE)
        settings.register_profile("fast", max_examples=20)
        settings.load_profile("fast")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A module that ``--fast`` leaves out as a whole is not even imported."""
    if config.getoption("fast") and collection_path.suffix == ".py":
        marks = MODULE_MARKS.search(collection_path.read_text())
        if marks is not None and any(f"mark.{mark}" in marks[1] for mark in NEEDS_MORE):
            return True
    return None


class Started:
    """What the test that runs now has started, by Python's audit events. Threads that were there
    before it, such as those of a library that an earlier test used, are not its doing.
    """

    def __init__(self) -> None:
        self.found: set[str] = set()
        self._older: set[int | None] = set()
        sys.addaudithook(self._see)

    def forget(self) -> None:
        """A test begins."""
        self.found.clear()
        self._older = {thread.ident for thread in threading.enumerate()}
        self._older.discard(threading.get_ident())

    def _see(self, event: str, details: tuple[object, ...]) -> None:
        if event in STARTS and threading.get_ident() not in self._older:
            self.found.add(f"{event} {details[:1]!r:.200}")


STARTED = Started()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Forget what others started."""
    STARTED.forget()
    yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """A test without a mark is what it says: it starts no process and opens no connection. What
    the last test of a worker tears down may be other tests' hosts.
    """
    own = set(STARTED.found)
    yield
    if own and not needs_more(item):
        told = ", ".join(sorted(own))
        pytest.fail(f"not marked `processes`, but starts something: {told}", pytrace=False)


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
        grown = min(settings.timeout * measure_slowdown(), LONGEST_TEST_S)
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
        # No process is to outlive its test.
        patch.setenv("ORCHESTRATE_KEEP_CONNECTIONS", "0")
        patch.setenv("ORCHESTRATE_WARM", "0")
        yield


@pytest.fixture(scope="session", autouse=True)
def shared_measurements(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One worker measures for all how busy the machine is."""
    folder = tmp_path_factory.getbasetemp()
    share_measurements((folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "load")


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
    places = places_of(item.path.relative_to(TESTS) for item in items)
    items.sort(key=lambda item: places[item.path.relative_to(TESTS)])
    for item in items:
        if "measured" in getattr(item, "fixturenames", ()):
            item.add_marker("promise")


def places_of(files: Iterable[Path]) -> dict[Path, tuple[int, float]]:
    """For each file its group, and how much of its folder comes before it."""
    folders: dict[tuple[int, str], list[Path]] = {}
    for file in dict.fromkeys(files):
        folders.setdefault(folder_of(file), []).append(file)
    return {
        file: (group, number / len(together))
        for (group, _), together in folders.items()
        for number, file in enumerate(together)
    }


def folder_of(file: Path) -> tuple[int, str]:
    """The group and the member of it that the file is, or is in."""
    names = (f"{file}", file.parts[0])
    places = ((group, name) for group, of in enumerate(LONGEST) for name in of if name in names)
    return min(places, default=(len(LONGEST), ""))


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


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A failure is named when it happens: a run that is ended from outside has said what failed."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = crash.message if crash else report.longreprtext.strip().rpartition("\n")[2]
        print(f"\nFAILED {report.nodeid} ({report.when}): {reason:.300}", file=sys.__stderr__)


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure when CI is set, unless it wants what CI cannot install."""
    if not os.environ.get("CI") or not report.skipped or hasattr(report, "wasxfail"):
        return
    place, line, reason = report.longrepr if isinstance(report.longrepr, tuple) else ("", 0, "")
    if not reason.removeprefix("Skipped: ").startswith(ACCEPTED_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"{place}:{line}: skipped in continuous integration: {reason}"
