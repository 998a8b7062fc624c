"""A finished run for MLflow: a process of its own logs it, so that no run waits for a server."""

from __future__ import annotations

import importlib.util
import os

from orchestrator.adapters.extras import install_command
from orchestrator.adapters.history.mlflow_store import VARIABLE
from orchestrator.adapters.report.finished_run import FinishedRun
from orchestrator.adapters.store.atomic_files import make_private_dir
from orchestrator.adapters.store.background_command import start_in_background
from orchestrator.core.base.errors import UsageError

# MLflow's own would try for many minutes.
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}


def start_mlflow_export(run: FinishedRun) -> None:
    """Let a process log the run to the tracking store that ``ORCHESTRATE_MLFLOW`` names; without
    the variable, nothing. Raises ``OSError``, :class:`UsageError` where MLflow is not installed.
    """
    if not os.environ.get(VARIABLE):
        return
    if importlib.util.find_spec("mlflow") is None:
        what = f"{VARIABLE} is set, and MLflow is not installed"
        remedy = f"{install_command('mlflow')}, or unset it"
        raise UsageError(what, id="mlflow.extra", remedy=remedy)
    folder = make_private_dir(run.layout.home / "mlflow")
    variables = {name: os.environ.get(name, value) for name, value in PATIENCE.items()}
    words = ["history", "mlflow", run.result.run_id]
    start_in_background(run.layout, words, folder / "export.log", variables)
