"""A real Prometheus on loopback with the exported files."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.monitoring.export_files import export_monitoring
from tests.hosts.running import wait_until
from tests.time_limits import scaled

INTERVAL_S = 3
ATTEMPTS = 3  # another program may take the port in between


class Prometheus:
    """A server that is up, asked over its API."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, path: str, **query: str) -> Any:
        """``data`` of an answer. Raises ``OSError``."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=scaled(10)) as answer:
            return json.load(answer)["data"]

    def value(self, expr: str) -> float | None:
        """Of the one series that ``expr`` selects now."""
        found = self.ask("query", query=expr)["result"]
        return float(found[0]["value"][1]) if len(found) == 1 else None

    def firing(self) -> set[tuple[str, str]]:
        """(alert, run, schedule or node) of all that fire."""
        alerts = [a for a in self.ask("alerts")["alerts"] if a["state"] == "firing"]
        labels = [alert["labels"] for alert in alerts]
        return {(each["alertname"], each.get("run") or each.get("schedule", "")) for each in labels}


@contextmanager
def running_prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """With the exported configuration and rules, at a shorter interval. Skips without Debian's
    package, unless in CI.
    """
    program = shutil.which("prometheus")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("prometheus is missing: apt-get install prometheus")
        pytest.skip("needs prometheus (Debian: prometheus)")
    export_monitoring(folder, target)
    config = folder / "prometheus" / "prometheus.yaml"
    config.write_text(re.sub(r"\b1[05]s", f"{INTERVAL_S}s", config.read_text()))
    for _ in range(ATTEMPTS):
        address = f"127.0.0.1:{_free_port()}"
        words = [program, f"--config.file={config}", f"--web.listen-address={address}"]
        words += [f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn"]
        with (folder / "prometheus.log").open("wb") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            if _is_up(process, address):
                yield Prometheus(address)
                return
        finally:
            process.terminate()
            process.wait(scaled(20))
    pytest.fail((folder / "prometheus.log").read_text()[-2000:])


def _is_up(process: subprocess.Popen[bytes], address: str) -> bool:
    def ready() -> bool:
        if process.poll() is not None:
            return True
        try:
            with urllib.request.urlopen(f"http://{address}/-/ready", timeout=scaled(5)):
                return True
        except OSError:
            return False

    wait_until("Prometheus is ready", ready, 30)
    return process.poll() is None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert isinstance(port, int)
        return port
