"""The comparison key of a run, from its request, its result and the facts of its nodes. Pure."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from orchestrator.core.base.command import Secret
from orchestrator.core.base.nodeset import fold_nodeset
from orchestrator.core.history.run_record import ComparisonKey
from orchestrator.core.model.checks import NCCL_WHEELS
from orchestrator.core.model.facts import Facts, Gpu
from orchestrator.core.model.request import RunRequest
from orchestrator.core.verdict.result import Result

_DIGITS = 16  # of digests that people see


def derive_key(
    request: RunRequest,
    result: Result,
    facts: Mapping[str, Facts],
    modules: Mapping[str, Mapping[str, str]],
) -> ComparisonKey:
    """``facts`` and ``modules`` (module -> version) by node; of nodes that are missing there, what
    the key needs is unknown, and so is what not all nodes agree on knowing.
    """
    names = [node.name for node in result.used]
    known = [facts[name] for name in names if name in facts]
    complete = len(known) == len(names)
    gpus = [gpu for fact in known for gpu in fact.gpus] if complete else []
    versions = [modules.get(name, {}) for name in names]
    return ComparisonKey(
        workload=result.workload,
        workload_version=_workload_version(request),
        configuration=_configuration(request, result),
        gpus=_count_models(gpus),
        gpu_mode=_one_of(map(_mode, gpus)),
        nodes=fold_nodeset(names),
        serials=_serials(gpus),
        driver=_one_of(fact.driver for fact in known) if complete else "",
        cuda=_one_of(fact.cuda for fact in known) if complete else "",
        nccl=_one_of(_nccl(found) for found in versions),
        torch=_one_of(found.get("torch", "") for found in versions),
    )


def _workload_version(request: RunRequest) -> str:
    """A user's own code is what is measured; a workload is what measures."""
    return "" if request.job.workload.own_code else request.code[:_DIGITS]


def _configuration(request: RunRequest, result: Result) -> str:
    parts = _configuration_parts(request, result)
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def configuration_differences(
    a: tuple[RunRequest, Result], b: tuple[RunRequest, Result]
) -> Iterator[str]:
    """What is behind two digests that differ: each setting with both values, ``-`` where unset."""
    one, other = (_flat(_configuration_parts(*side)) for side in (a, b))
    for name in sorted(one | other):
        if one.get(name) != other.get(name):
            yield f"{name}: {one.get(name, '-')} and {other.get(name, '-')}"


def _flat(parts: Mapping[str, object]) -> dict[str, str]:
    """With a line for each parameter and variable; texts as JSON."""
    found = {}
    for name, value in parts.items():
        inner = value if isinstance(value, Mapping) else {"": value}
        for key, each in inner.items():
            found[f"{name} {key}".strip()] = json.dumps(each, sort_keys=True, default=str)
    return found


def _configuration_parts(request: RunRequest, result: Result) -> dict[str, object]:
    job, workload = request.job, request.job.workload
    # Secrets go in by their names alone: a digest of a short one could be guessed.
    env = {k: None if isinstance(v, Secret) else v for k, v in request.env.items()}
    used = [rung.rung for rung in result.ladder if rung.outcome == "used"]
    parts: dict[str, object] = {
        "values": dict(job.values),
        "arguments": list(job.arguments),
        "command": [*workload.program, *workload.python, request.entry or workload.entry],
        "env": env,
        "launcher": result.launcher,
        "launcher_options": list(request.launcher_options),
        "world_size": result.world_size,
        "communication": used,
        "samples": request.samples.digest if request.samples else "",
    }
    contained = {node.container.image for node in request.cluster.workers if node.container}
    if contained:  # another key would part runs without containers from their own past
        parts["images"] = sorted(contained)
    return parts


def _count_models(gpus: Sequence[Gpu]) -> str:
    counts = Counter(gpu.name for gpu in gpus)
    return " + ".join(f"{count} x {name}" for name, count in sorted(counts.items()))


def _mode(gpu: Gpu) -> str:
    parts = []
    if gpu.power_limit_w is not None:
        parts.append(f"{gpu.power_limit_w:.0f} W")
    if gpu.ecc.enabled is not None:
        parts.append("ECC" if gpu.ecc.enabled else "no ECC")
    if gpu.mig:
        parts.append("MIG")
    return ", ".join(parts)


def _serials(gpus: Sequence[Gpu]) -> str:
    uuids = sorted(gpu.uuid for gpu in gpus)
    if not uuids or not all(uuids):
        return ""
    return hashlib.sha256("\n".join(uuids).encode()).hexdigest()[:_DIGITS]


def _nccl(modules: Mapping[str, str]) -> str:
    return next((modules[wheel] for wheel in NCCL_WHEELS if modules.get(wheel)), "")


def _one_of(values: Iterable[str]) -> str:
    """What all say; where they differ, everything that is said."""
    return " / ".join(sorted(set(values)))
