"""All files of an exported job, within the limits of ConfigMaps, and where they are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from orchestrator.adapters.kubernetes.pod_files import code_files, plan_files
from orchestrator.adapters.sync.code_snapshot import Snapshot
from orchestrator.adapters.sync.ignore_rules import IGNORE_FILE
from orchestrator.core.base.errors import UsageError
from orchestrator.core.kubernetes.manifests import (
    FILES,
    MAX_CONFIG_MAP_BYTES,
    KubernetesObject,
    config_map,
    job_manifests,
)
from orchestrator.core.kubernetes.pod_template import DIGEST_CHARACTERS
from orchestrator.core.kubernetes.settings import CodePlace, PodSettings
from orchestrator.core.kubernetes.yaml_text import render_yaml
from orchestrator.core.model.plan import Plan
from orchestrator.core.model.request import RunRequest

LARGEST_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedJob:
    """``manifests``: text by the name of its file. ``code``: what an image or a claim is to hold,
    below the folder ``code``; nothing where a ConfigMap does.
    """

    manifests: Mapping[str, str]
    code: Mapping[str, bytes] = field(default_factory=dict)


def export_job(
    request: RunRequest, plan: Plan, settings: PodSettings, snapshot: Snapshot
) -> ExportedJob:
    """Raises ``UsageError`` for what no ConfigMap or manifest can hold, and ``PreflightError`` if
    files changed meanwhile.
    """
    objects = list(job_manifests(plan, settings, request.job.workload.shape))
    planned = plan_files(request, plan)
    _check_plan(planned, plan)
    objects.append(config_map(settings, "plan", planned))
    code = code_files(snapshot)
    if settings.code is CodePlace.CONFIGMAP:
        _check_code(code, snapshot, request)
        objects.append(config_map(settings, "code", code))
        code = {}
    return ExportedJob(manifests=dict(map(_text, objects)), code=_placed(code, plan))


def _text(made: KubernetesObject) -> tuple[str, str]:
    text = render_yaml(made.document, made.head)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        what = f"{made.file} would hold what is not Unicode: {text[error.start]!r}"
        remedy = "correct the argument or variable that has it"
        raise UsageError(what, id="export.text", remedy=remedy) from error
    return made.file, text


def _placed(code: Mapping[str, bytes], plan: Plan) -> dict[str, bytes]:
    return {f"{plan.code[:DIGEST_CHARACTERS]}/{name}": data for name, data in code.items()}


def _check_plan(files: Mapping[str, bytes], plan: Plan) -> None:
    size = sum(map(len, files.values()))
    if size <= MAX_CONFIG_MAP_BYTES:
        return
    raise UsageError(
        f"the plan of {len(plan.nodes)} nodes takes {size} bytes, a ConfigMap holds 1 MiB",
        id="export.plan-size",
        remedy="select fewer nodes with --nodes",
    )


def _check_code(files: Mapping[str, bytes], snapshot: Snapshot, request: RunRequest) -> None:
    size = sum(map(len, files.values()))
    if size <= MAX_CONFIG_MAP_BYTES:
        return
    raise UsageError(
        f"the code takes {size / MAX_CONFIG_MAP_BYTES:.1f} MiB compressed, a ConfigMap holds 1 MiB",
        id="export.code-size",
        where=request.job.workload.folder,
        why=f"the largest files: {', '.join(_largest(snapshot))}",
        remedy=f"list in {IGNORE_FILE} what the job does not read, or --code image or "
        "--code claim:NAME with --out DIR",
    )


def _largest(snapshot: Snapshot) -> Iterator[str]:
    by_size = sorted(snapshot.manifest.files(), key=lambda entry: -entry.size)
    for entry in islice(by_size, LARGEST_SHOWN):
        yield f"{entry.path} ({entry.size / 1024:.0f} KiB)"


# A folder in the project would else be code of the next export, which has it in turn.
GIT_IGNORE = ".gitignore"
_NO_CODE = "".join(f"/{name}\n" for name in (*FILES, "code/", GIT_IGNORE)).encode()


def write_job(folder: Path, job: ExportedJob) -> Sequence[Path]:
    """Write every file, in place of those of an earlier export; their paths.

    Raises :class:`UsageError` where one cannot be written.
    """
    files = {name: text.encode() for name, text in job.manifests.items()}
    files |= {f"code/{name}": data for name, data in job.code.items()}
    if not (folder / GIT_IGNORE).exists():
        files[GIT_IGNORE] = _NO_CODE
    paths = {folder / name: content for name, content in files.items()}
    try:
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        for path, content in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        what = f"not written: {error.strerror or error}"
        remedy = "name a folder that you may write to"
        where = error.filename or folder
        raise UsageError(what, id="export.out", where=where, remedy=remedy) from error
    return [path for path in paths if path.name != GIT_IGNORE]
