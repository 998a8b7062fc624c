"""Runs pytest and writes down what became of each test; a program of its own, see ``trial.py``.

``witness.py REPORT ARGUMENT...``: pytest with these arguments, one JSON line in REPORT for each
phase of each test, and for each file that could not be collected.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

# A bug that does not even load proves nothing about the tests.
DOES_NOT_LOAD = (ImportError, SyntaxError, NameError)


class Witness:
    """A plugin. Every line is there as soon as it is true: the tests may be killed."""

    def __init__(self, report: Path) -> None:
        self._report = report

    def pytest_configure(self) -> None:
        """Always the same examples, so that whether a bug is caught does not depend on luck; and
        any example that fails will do.
        """
        from hypothesis import Phase, settings

        tried = (Phase.explicit, Phase.generate)
        settings.register_profile("witness", derandomize=True, database=None, phases=tried)
        settings.load_profile("witness")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._tell(report.nodeid, "collect", "failed", loads=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        loads = call.excinfo is None or not issubclass(call.excinfo.type, DOES_NOT_LOAD)
        self._tell(item.nodeid, call.when, report.outcome, loads=loads)
        return report

    def _tell(self, test: str, phase: str, outcome: str, *, loads: bool) -> None:
        line = {"test": test, "phase": phase, "outcome": outcome, "loads": loads}
        with self._report.open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[2:], plugins=[Witness(Path(sys.argv[1]))]))
