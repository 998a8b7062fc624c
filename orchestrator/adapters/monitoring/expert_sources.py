"""Where loads of experts are read from: a run's outputs, a dump, an engine's metrics."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

from orchestrator.adapters.extras import install_command
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.core.base.errors import PreflightError, UsageError
from orchestrator.core.monitoring.expert_load import ExpertTable
from orchestrator.parsing.experts import engine_metrics, router_telemetry
from orchestrator.parsing.experts.engine_dumps import parse_sglang_dump, parse_vllm_dump
from orchestrator.parsing.experts.expert_shape import BadExpertFile

TELEMETRY = "router_telemetry.json"
TIMEOUT_S = 10.0
_READERS: dict[str, Callable[[BufferedReader], ExpertTable]] = {
    ".pt": parse_sglang_dump,
    ".safetensors": parse_vllm_dump,
    ".json": lambda file: router_telemetry.parse_router_telemetry(
        file.read(router_telemetry.MAX_BYTES + 1)
    ),
}


def find_telemetry(folder: RunFolder) -> Path | None:
    """What a run's ranks wrote of their routers, once it has come; of several nodes the first."""
    return next(iter(folder.outputs_called(TELEMETRY)), None)


def read_expert_file(path: Path) -> ExpertTable:
    """By what the name ends with; anything else is read as metrics. Raises :class:`UsageError`."""
    try:
        with path.open("rb") as file:
            reader = _READERS.get(path.suffix)
            if reader is not None:
                return reader(file)
            content = file.read(engine_metrics.MAX_BYTES + 1)
        return _read_metrics(content)
    except OSError as error:
        what, remedy = f"cannot be read: {error.strerror or error}", "name a file or a run"
        raise UsageError(what, id="monitor.experts", where=path, remedy=remedy) from error
    except BadExpertFile as error:
        raise _not_readable(path, error) from error


def fetch_expert_metrics(url: str) -> ExpertTable:
    """An engine's metrics, in bounded time and memory; redirects are not followed.

    Raises :class:`UsageError`, :class:`PreflightError` where it does not answer.
    """
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(url, timeout=TIMEOUT_S) as answer:
            content = answer.read(engine_metrics.MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        what = f"the engine does not answer: {str(error)[:200]}"
        remedy = "is it up, and is this its address for metrics?"
        raise PreflightError(what, id="monitor.engine", where=url, remedy=remedy) from error
    try:
        return _read_metrics(content)
    except BadExpertFile as error:
        raise _not_readable(url, error) from error


def _read_metrics(content: bytes) -> ExpertTable:
    try:
        return engine_metrics.parse_engine_metrics(content)
    except ModuleNotFoundError as error:
        what = "reading metrics needs prometheus-client, and it is not installed"
        raise UsageError(what, id="monitor.extra", remedy=install_command("serve")) from error


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object) -> None:
        del args


def _not_readable(where: object, error: BadExpertFile) -> UsageError:
    remedy = "docs/moe.md says which files and metrics are read"
    return UsageError(str(error), id="monitor.experts", where=where, remedy=remedy)
