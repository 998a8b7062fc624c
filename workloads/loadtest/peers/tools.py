"""How other tools are asked for our load, and what their results say. Pure.

Written for vLLM 0.33 (``vllm bench serve``), AIPerf 0.13 and guidellm 0.8. A result is foreign:
each figure that is read is a finite number in its bounds, or the result is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.arrivals import CONSTANT, GAMMA
from ..base.job import CHAT, PATHS, Target

MAX_MS = 1e9
MAX_RATE = 1e9
STATISTICS = ("mean", "p50", "p90", "p99")


class PeerError(RuntimeError):
    """A tool that is not there, failed, or left no result that makes sense."""

    id = "OR-LOAD-008"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerLoad:
    """The load that a tool is to send: as many requests as ours, with equally long answers.

    ``rate``: requests/s; None: ``concurrency`` streams. ``folder`` receives the result; ``prompts``
    is a file in it with a line for each request. ``tokenizer``: a folder or hub name.
    """

    target: Target
    requests: int
    rate: float | None
    concurrency: int
    arrival: str
    burstiness: float
    output_tokens: int
    ignore_eos: bool
    seed: int
    processes: int
    tokenizer: str
    folder: Path

    @property
    def prompts(self) -> Path:
        return self.folder / "prompts.jsonl"

    @property
    def root(self) -> str:
        """The server's URL without /v1, as tools want it. Raises :class:`PeerError`."""
        root, slash, version = self.target.url.rpartition("/")
        if not slash or version != "v1":
            raise PeerError(f"a cross-check needs an endpoint that ends in /v1: {self.target.url}")
        return root


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFigures:
    """What a tool says: ``figures`` by our names, in seconds and per second."""

    completed: int
    failed: int
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTool:
    """One tool. ``package`` brings it; ``definition`` names its own among ours; ``key``: its key of
    a line with a prompt; ``result``: the file that it leaves in the folder. ``shows_key``: it takes
    the key of the server from its command line, which all users of a node see.
    """

    name: str
    program: str
    package: str
    definition: str
    key: str
    result: str
    argv: Callable[[PeerLoad], list[str]]
    read: Callable[[Mapping[str, Any]], PeerFigures]
    shows_key: bool = True


def _vllm_words(load: PeerLoad) -> list[str]:
    kind = "openai-chat" if load.target.api == CHAT else "openai"
    options: dict[str, object] = {
        "--backend": kind,
        "--base-url": load.root,
        "--endpoint": f"/v1/{PATHS[load.target.api]}",
        "--model": load.target.model,
        "--tokenizer": load.tokenizer,
        "--dataset-name": "custom",
        "--dataset-path": load.prompts,
        "--custom-output-len": load.output_tokens,
        "--num-prompts": load.requests,
        "--seed": load.seed,
        "--temperature": 0,
        "--percentile-metrics": "ttft,tpot,itl,e2el",
        "--metric-percentiles": "50,90,99",
        "--result-dir": load.folder,
        "--result-filename": VLLM.result,
        "--ready-check-timeout-sec": 0,
    }
    if load.rate is None:
        options["--max-concurrency"] = load.concurrency
    else:
        options |= {"--request-rate": load.rate, "--burstiness": _burstiness(load)}
    flags = ["--skip-chat-template", "--disable-shuffle", "--disable-tqdm", "--save-result"]
    flags += ["--ignore-eos"] if load.ignore_eos else []
    return ["bench", "serve", *_words(options), *flags]


def _burstiness(load: PeerLoad) -> float:
    """vLLM's word for the shape of gaps: without end for equal ones, 1 for Poisson's."""
    return {CONSTANT: math.inf, GAMMA: load.burstiness}.get(load.arrival, 1.0)


def _read_vllm(document: Mapping[str, Any]) -> PeerFigures:
    figures = {
        "requests_per_s": _number(document, "request_throughput", MAX_RATE),
        "output_tokens_per_s": _number(document, "output_throughput", MAX_RATE),
    }
    names = {"ttft": "ttft", "tpot": "tpot", "itl": "itl", "request_latency": "e2el"}
    for ours, theirs in names.items():
        for statistic in STATISTICS:
            key = f"{statistic}_{theirs}_ms"
            figures[f"{ours}_{statistic}"] = _number(document, key, MAX_MS) / 1e3
    completed, failed = (int(_number(document, key, MAX_RATE)) for key in ("completed", "failed"))
    return PeerFigures(completed=completed, failed=failed, figures=figures)


def _aiperf_words(load: PeerLoad) -> list[str]:
    extra = {"temperature": 0, "max_tokens": load.output_tokens}
    options: dict[str, object] = {
        "--model": load.target.model,
        "--url": load.root,
        "--endpoint-type": "chat" if load.target.api == CHAT else "completions",
        "--tokenizer": load.tokenizer,
        "--input-file": load.prompts,
        "--custom-dataset-type": "single_turn",
        "--request-count": load.requests,
        "--random-seed": load.seed,
        "--extra-inputs": json.dumps(extra | ({"ignore_eos": True} if load.ignore_eos else {})),
        "--workers-max": load.processes,
        "--record-processors": load.processes,
        "--artifact-dir": load.folder,
        "--export-level": "summary",
        "--ui": "none",
    }
    if load.rate is None:
        options["--concurrency"] = load.concurrency
    else:
        options |= {"--request-rate": load.rate, "--arrival-pattern": load.arrival}
    if load.rate is not None and load.arrival == GAMMA:
        options["--arrival-smoothness"] = load.burstiness
    flags = ["--streaming", "--use-server-token-count", "--no-gpu-telemetry", "--no-server-metrics"]
    return ["profile", *_words(options), *flags]


def _read_aiperf(document: Mapping[str, Any]) -> PeerFigures:
    figures = {
        "requests_per_s": _aiperf_number(document, "request_throughput", "avg", MAX_RATE),
        "output_tokens_per_s": _aiperf_number(document, "output_token_throughput", "avg", MAX_RATE),
    }
    names = {
        "ttft": "time_to_first_token",
        "itl": "inter_token_latency",
        "request_latency": "request_latency",
    }
    for ours, theirs in names.items():
        for statistic in STATISTICS:
            key = "avg" if statistic == "mean" else statistic
            figures[f"{ours}_{statistic}"] = _aiperf_number(document, theirs, key, MAX_MS) / 1e3
    failed = document.get("error_request_count")
    return PeerFigures(
        completed=int(_aiperf_number(document, "request_count", "avg", MAX_RATE)),
        failed=int(_number(failed, "avg", MAX_RATE)) if isinstance(failed, dict) else 0,
        figures=figures,
    )


def _aiperf_number(document: Mapping[str, Any], name: str, key: str, most: float) -> float:
    found = document.get(name)
    if not isinstance(found, dict):
        raise PeerError(f"the result has no {name}")
    return _number(found, key, most)


def _guidellm_words(load: PeerLoad) -> list[str]:
    body = {"temperature": 0} | ({"ignore_eos": "true"} if load.ignore_eos else {})
    backend = {
        "kind": "openai_http",
        "target": load.root,
        "model": load.target.model,
        "request_format": f"/v1/{PATHS[load.target.api]}",
        "max_tokens": load.output_tokens,
        "http2": "false",
    } | {f"extras.body.{name}": value for name, value in body.items()}
    profile: dict[str, object] = {"kind": "concurrent", "streams": load.concurrency}
    if load.rate is not None:
        profile = {"kind": load.arrival, "rate": load.rate}
    options: dict[str, Mapping[str, object]] = {
        "--backend": backend,
        "--profile": profile,
        "--constraint": {"kind": "max_requests", "count": load.requests},
        "--data": {"kind": "json_file", "path": load.prompts},
        "--tokenizer": {"kind": "huggingface_auto", "model": load.tokenizer},
        "--seed": {"kind": "static", "value": load.seed},
        "--metrics": {"kind": "generative", "sample_size": 0},
        "--output": {"kind": "json", "path": load.folder / GUIDELLM.result},
    }
    words = {name: ",".join(_pairs(values)) for name, values in options.items()}
    return ["run", *_words(words), "--disable-console"]


def _pairs(values: Mapping[str, object]) -> Iterator[str]:
    """As guidellm reads them. Raises :class:`PeerError` for what it would take apart."""
    for name, value in values.items():
        if "," in str(value):
            raise PeerError(f"guidellm cannot be given a {name} with a comma: {value}")
        yield f"{name}={value}"


def _read_guidellm(document: Mapping[str, Any]) -> PeerFigures:
    metrics = _part(document, "benchmarks", 0, "metrics")
    totals = _part(metrics, "request_totals")
    figures = {
        "requests_per_s": _guidellm_number(metrics, "requests_per_second", "mean", MAX_RATE),
        "output_tokens_per_s": _guidellm_number(
            metrics, "output_tokens_per_second", "mean", MAX_RATE
        ),
    }
    names = {
        "ttft": ("time_to_first_token_ms", 1e3),
        "tpot": ("time_per_output_token_ms", 1e3),
        "itl": ("inter_token_latency_ms", 1e3),
        "request_latency": ("request_latency", 1.0),
    }
    for ours, (theirs, per_s) in names.items():
        for statistic in STATISTICS:
            found = _guidellm_number(metrics, theirs, statistic, MAX_MS)
            figures[f"{ours}_{statistic}"] = found / per_s
    completed, failed = (int(_number(totals, key, MAX_RATE)) for key in ("successful", "errored"))
    return PeerFigures(completed=completed, failed=failed, figures=figures)


def _guidellm_number(metrics: Mapping[str, Any], name: str, statistic: str, most: float) -> float:
    """Of requests that succeeded."""
    found = _part(metrics, name, "successful")
    return _number(found if statistic == "mean" else _part(found, "percentiles"), statistic, most)


def _part(document: Any, *keys: str | int) -> Mapping[str, Any]:
    """What is found below these keys. Raises :class:`PeerError` where that is no object."""
    found = document
    for key in keys:
        try:
            found = found[key]
        except (LookupError, TypeError):
            raise PeerError(f"the result has no {key!r}") from None
    if not isinstance(found, dict):
        raise PeerError(f"the result's {keys[-1]!r} is no object")
    return found


def _number(document: Mapping[str, Any], key: str, most: float) -> float:
    value: Any = document.get(key)
    number = value if type(value) in {int, float} else math.nan
    if not 0 <= number <= most:  # NaN is not either
        raise PeerError(f"the result's {key} is {repr(value)[:40]}, not a number up to {most:g}")
    return float(number)


def _words(options: Mapping[str, object]) -> Iterator[str]:
    for name, value in options.items():
        yield from (name, str(value))


VLLM = PeerTool(
    name="vllm",
    program="vllm",
    package="vllm[bench]",
    definition="vllm",
    key="prompt",
    result="vllm_bench.json",
    argv=_vllm_words,
    read=_read_vllm,
    shows_key=False,
)
AIPERF = PeerTool(
    name="aiperf",
    program="aiperf",
    package="aiperf==0.13.0",
    definition="aiperf",
    key="text",
    result="profile_export_aiperf.json",
    argv=_aiperf_words,
    read=_read_aiperf,
)
GUIDELLM = PeerTool(
    name="guidellm",
    program="guidellm",
    package="guidellm==0.8.1",
    definition="guidellm",
    key="prompt",
    result="guidellm.json",
    argv=_guidellm_words,
    read=_read_guidellm,
)
TOOLS: Mapping[str, PeerTool] = {tool.name: tool for tool in (VLLM, AIPERF, GUIDELLM)}
