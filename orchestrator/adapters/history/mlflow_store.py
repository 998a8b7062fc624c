"""Runs of the history as runs of an MLflow tracking store: figures, curves, conditions.

An experiment for each workload. A figure is a metric of its name, its curve over steps
``curves/NAME``; settings of the run and parts of its comparison key are parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from orchestrator.adapters.extras import install_command
from orchestrator.core.base.errors import UsageError
from orchestrator.core.history.run_record import Curve, RunRecord
from orchestrator.core.verdict.result import Status

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

Curves = Mapping[str, Curve]

VARIABLE = "ORCHESTRATE_MLFLOW"  # the URI of the tracking store
RUN_TAG = "orchestrate.run_id"
# What the protocol takes in one request.
MAX_METRICS, MAX_PARAMS, MAX_VALUE = 1000, 100, 500
_STATES = {
    Status.SUCCEEDED: "FINISHED",
    Status.DEGRADED: "FINISHED",
    Status.FAILED: "FAILED",
    Status.STOPPED: "KILLED",
}
_Item = TypeVar("_Item")


class MlflowStore:
    """The tracking store at ``uri``. Raises :class:`UsageError` where MLflow is not installed, or
    the store cannot be used; no message repeats what a URI has of a user and a password.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            what = "MLflow is not installed"
            remedy = install_command("mlflow")
            raise UsageError(what, id="mlflow.extra", remedy=remedy) from error
        with _explained(uri):
            self._client: MlflowClient = MlflowClient(tracking_uri=uri)

    def log_run(self, run: RunRecord, settings: Mapping[str, str], curves: Curves) -> str:
        """Log ``run``; MLflow's id of it. One that was logged before is left as it is, one that a
        crash left half-logged is made anew.
        """
        with _explained(self._uri):
            return self._log_run(run, settings, curves)

    def _log_run(self, run: RunRecord, settings: Mapping[str, str], curves: Curves) -> str:
        experiment = self._experiment(run.workload)
        for known in self._client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run.run_id}'"):
            if known.info.status != "RUNNING":
                return str(known.info.run_id)
            self._client.delete_run(known.info.run_id)
        started = _milliseconds(run.started)
        made = self._client.create_run(
            experiment, start_time=started, tags=_tags(run), run_name=run.run_id
        )
        number = str(made.info.run_id)
        for metrics in _chunks(list(_metrics(run, curves)), MAX_METRICS):
            self._client.log_batch(number, metrics=metrics)
        for chunk in _chunks(list(_parameters(run, settings).items()), MAX_PARAMS):
            self._client.log_batch(number, params=[_parameter(*pair) for pair in chunk])
        self._client.set_terminated(number, _STATES[run.status], _milliseconds(run.finished))
        return number

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException:  # another process made it meanwhile
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """What MLflow and its transport raise, as our error."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError, ImportError) as error:
        where = shown_uri(uri)
        # A message may repeat the URI with its password.
        why = str(error).strip().partition("\n")[0][:300] if where == uri else type(error).__name__
        what, remedy = "nothing was logged to MLflow", "orchestrate history mlflow RUN tries again"
        raise UsageError(what, id="mlflow.store", where=where, why=why, remedy=remedy) from error


def shown_uri(uri: str) -> str:
    """Names the store for people, without user and password."""
    netloc = urlsplit(uri).netloc
    return uri.replace(netloc, netloc.rpartition("@")[2], 1) if netloc else uri


def _tags(run: RunRecord) -> dict[str, str]:
    return {
        RUN_TAG: run.run_id,
        "orchestrate.status": run.status.value,
        "orchestrate.cluster": run.cluster,
        "orchestrate.code": run.code,
        "mlflow.source.git.commit": run.commit,
    }


def _parameters(run: RunRecord, settings: Mapping[str, str]) -> dict[str, str]:
    """Settings by their names, parts of the key as ``key.PART``; unknown ones are left out."""
    parts = {f"key.{part}": value for part, value in run.key.as_mapping().items() if value}
    return {**settings, **parts}


def _metrics(run: RunRecord, curves: Curves) -> Iterator[Metric]:
    from mlflow.entities import Metric

    at = _milliseconds(run.finished)
    for name, figure in run.figures.items():
        if figure.value is not None and figure.measured:
            yield Metric(_name(name), figure.value, at, 0)
    for name, curve in curves.items():
        for step, value in curve:
            yield Metric(f"curves/{_name(name)}", value, at, step)


def _parameter(name: str, value: str) -> Any:
    from mlflow.entities import Param

    return Param(_name(name), value[:MAX_VALUE])


def _name(text: str) -> str:
    """With the characters alone that MLflow takes in names."""
    return re.sub(r"[^A-Za-z0-9_./ -]", "-", text)[:250]


def _milliseconds(moment: float) -> int:
    return int(moment * 1000)


def _chunks(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
