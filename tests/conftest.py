"""What holds for every test: a state directory of its own, unshared hosts, no silent skips."""

from __future__ import annotations

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

HOSTS = Path(__file__).parent / "hosts"
WORKLOADS = Path(__file__).parent / "workloads"
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one file that use virtual hosts stay on one worker; each worker has a set of hosts
    of its own. They begin first, then whole workloads, because these are what takes long: at the
    end no worker is left with one of them while the others have nothing to do.
    """
    for item in items:
        if uses_hosts(item):
            item.add_marker(pytest.mark.xdist_group(f"hosts-{item.path.stem}"))
    items.sort(key=lambda item: (not uses_hosts(item), not item.path.is_relative_to(WORKLOADS)))


def uses_hosts(item: pytest.Item) -> bool:
    return item.path.is_relative_to(HOSTS) or item.get_closest_marker("hosts") is not None


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
