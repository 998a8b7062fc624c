"""What holds for every test: a state directory of its own, unshared hosts, no silent skips."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

# Programs with torch in them run beside each other here: with a thread per core each they would
# spend their time waiting for each other. Set before anything imports torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Where there is no GPU, Triton's kernels run in its interpreter, which is chosen at its import.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

TESTS = Path(__file__).parent
# Folders whose files take long, the longest first.
LONGEST = "hosts workloads bootstrap security contracts engine cli simulation bench".split()
HARDWARE = "hardware: "  # how the reason of a skip starts that continuous integration accepts


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first: a file stays on one worker, and at the end no worker is left
    with a long one while the others have nothing to do.
    """
    items.sort(key=order_of)


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
