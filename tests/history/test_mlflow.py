"""Runs in a real MLflow tracking store on disk; an export neither fails nor delays a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.extras import install_command
from orchestrator.adapters.history.mlflow_store import RUN_TAG, VARIABLE
from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.report.exporters.mlflow_export import start_mlflow_export
from orchestrator.adapters.report.finished_run import FinishedRun
from orchestrator.adapters.store.layout import Layout
from orchestrator.cli.main import main
from orchestrator.core.base.errors import UsageError
from orchestrator.core.verdict.result import Status
from tests.core.world import request
from tests.history.made_runs import make_entry
from tests.notify.servers import webhook
from tests.time_limits import scaled

pytestmark = [
    pytest.mark.processes,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # MLflow's own
]
SECRET = "s3cr3t-of-the-store"
HOME_RUN = make_entry("r1", 100.0, speed=100.5, power=700.0, lost=None)


@pytest.fixture
def tracking(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the store that ``ORCHESTRATE_MLFLOW`` names, and a history with two runs."""
    mlflow = pytest.importorskip("mlflow")
    uri = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv(VARIABLE, uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = open_history(Layout(home))
    store.record_run(HOME_RUN)
    store.record_run(make_entry("r2", 200.0, status=Status.FAILED, speed=1.0))
    return mlflow.MlflowClient(tracking_uri=uri)


def logged(client: Any, run_id: str) -> list[Any]:
    (experiment,) = client.search_experiments(filter_string="name = 'finetune'")
    found = client.search_runs([experiment.experiment_id], f"tags.`{RUN_TAG}` = '{run_id}'")
    return list(found)


def test_a_run_is_there_with_figures_curves_and_conditions(tracking: Any) -> None:
    assert main(["history", "mlflow", "r1", "r2"]) == 0

    (run,), (failed,) = logged(tracking, "r1"), logged(tracking, "r2")
    assert (run.info.run_name, run.info.status) == ("r1", "FINISHED")
    assert (run.info.start_time, run.info.end_time) == (99_000, 100_000)
    assert failed.info.status == "FAILED"
    assert (run.data.metrics["speed"], run.data.metrics["power"]) == (100.5, 700.0)
    assert "lost" not in run.data.metrics
    assert run.data.params["key.gpus"] == "8 x NVIDIA H200"
    assert run.data.tags["orchestrate.cluster"] == "c"
    curve = tracking.get_metric_history(run.info.run_id, "curves/speed")
    assert [(point.step, point.value) for point in curve] == [(0, 1.0), (1, 100.5)]


def test_logging_again_leaves_one_run(tracking: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Also after a process that died half-way."""
    main(["history", "mlflow", "r1"])
    (first,) = logged(tracking, "r1")
    main(["history", "mlflow", "r1"])
    (second,) = logged(tracking, "r1")
    tracking.update_run(second.info.run_id, status="RUNNING")
    main(["history", "mlflow", "r1"])
    (third,) = logged(tracking, "r1")

    assert first.info.run_id == second.info.run_id != third.info.run_id
    assert len(tracking.get_metric_history(second.info.run_id, "speed")) == 1
    assert third.data.metrics["speed"] == 100.5


def test_a_finished_run_is_logged_by_a_process_of_its_own(tracking: Any, home: Path) -> None:
    start_mlflow_export(_finished(home))

    for _ in until(scaled(60)):
        found = tracking.search_experiments(filter_string="name = 'finetune'")
        if found and any(run.info.status == "FINISHED" for run in logged(tracking, "r1")):
            break
    assert logged(tracking, "r1")[0].data.metrics["speed"] == 100.5


def test_a_server_that_fails_costs_a_line_in_a_log_without_its_password(
    tracking: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    log = home / "mlflow" / "export.log"
    with webhook([500]) as server:
        monkeypatch.setenv(VARIABLE, server.url.replace("://", f"://u:{SECRET}@"))
        start_mlflow_export(_finished(home))
        for _ in until(scaled(60)):
            if log.exists() and "nothing was logged" in log.read_text():
                break

    text = log.read_text()
    assert "orchestrate history mlflow" in text
    assert SECRET not in text


def test_a_missing_client_is_said_with_its_remedy(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "sqlite:///x")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(UsageError, match="not installed") as caught:
        start_mlflow_export(_finished(home))

    assert install_command("mlflow") in caught.value.remedy


def test_without_the_variable_nothing_is_started(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    start_mlflow_export(_finished(home))

    assert not (home / "mlflow").exists()
    assert main(["history", "mlflow", "r1"]) == 2


def _finished(home: Path) -> FinishedRun:
    home.mkdir(mode=0o700, exist_ok=True)
    layout = Layout(home)
    return FinishedRun(
        layout=layout,
        folder=layout.run("r1"),
        request=request("a"),
        result=HOME_RUN.result,
        now=100.0,
    )


def until(limit_s: float) -> Iterator[None]:
    """Turns of a loop that waits; the test fails after ``limit_s``."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        yield
        time.sleep(0.1)
    pytest.fail(f"not within {limit_s:g} s")
