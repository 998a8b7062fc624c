"""An image made ready on this node: there or pulled, with its digest and what its Python has."""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress

from orchestrator.node_agent.base.agent_errors import AgentFault
from orchestrator.node_agent.base.login import expand_path
from orchestrator.node_agent.base.node_layout import write_atomically
from orchestrator.node_agent.base.sysfs import boot_id
from orchestrator.node_agent.base.wire import read_field, read_strings
from orchestrator.node_agent.code.told_process import BuildFailed, run_told
from orchestrator.node_agent.containers.container_tools import (
    NO_CONTAINER,
    EngineError,
    ask,
    complaint,
    environment,
    find_program,
)
from orchestrator.node_agent.facts.interpreter import MAX_MODULES
from orchestrator.node_agent.facts.module_versions import find_modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from orchestrator.node_agent.base.call import Context

MAX_WORDS = 1024
ID = re.compile(r"(?:sha256:)?([0-9a-f]{64})\Z")
CHUNK_BYTES = 1024 * 1024
MAX_RECORD = 64 * 1024
GPU_DEVICE = "/dev/nvidiactl"
EVENT = "image"


def prepare_image(context: Context, request: Mapping[str, Any]) -> dict[str, Any]:
    """What ``core.containers`` asks -> the engine's program, the image's reference and digest,
    and the modules that its Python finds. Raises :class:`AgentFault` with the engine's own words.
    """
    engine, file = read_field(request, "engine", str), read_field(request, "file", str, "")
    try:
        program = find_program(engine)
        reference = expand_path(file) if file else _reference(context, program, request)
        digest = _file_digest(context, reference) if file else _digest_of(reference)
        modules = _modules(context, [program, reference, digest], request)
    except EngineError as error:
        raise AgentFault(NO_CONTAINER, f"{engine}: {error}") from error
    return {"program": program, "reference": reference, "digest": digest, "modules": modules}


def _reference(context: Context, program: str, request: Mapping[str, Any]) -> str:
    """The image's id. What the engine has is not asked of a registry."""
    show = read_strings(request, "show", MAX_WORDS, [])
    with suppress(EngineError):
        if show:
            return _id_in(ask([program, *show]))
    pull = read_strings(request, "pull", MAX_WORDS)
    try:
        last = run_told(context, {"event": EVENT}, [program, *pull], environment())
    except BuildFailed as error:
        raise EngineError(complaint("\n".join(error.last))) from error
    return _id_in(ask([program, *show]) if show else "\n".join(last))


def _id_in(text: str) -> str:
    """The id that is the last line. Raises :class:`EngineError`."""
    last = text.strip().rpartition("\n")[2].strip()
    if ID.match(last) is None:
        raise EngineError(f"printed no id of the image: {last[:80]!r}")
    return last


def _digest_of(reference: str) -> str:
    found = ID.match(reference)
    assert found is not None, "checked as it was read"
    return f"sha256:{found.group(1)}"


def _file_digest(context: Context, path: str) -> str:
    """Of a file's content, remembered while the file stays as it is: images have gigabytes."""
    try:
        status = os.stat(path)
        known = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]
        record = context.layout.image(json.dumps([path, known]))
        found = _remembered(record)
        if not found:
            found = {"digest": "sha256:" + _read_digest(path)}
            write_atomically(record, json.dumps(found).encode())
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror}") from error
    return found["digest"]


def _read_digest(path: str) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()


def _modules(context: Context, image: list[str], request: Mapping[str, Any]) -> dict[str, str]:
    """What its Python finds; asked once in a boot where that lasts. ``image``: program, reference,
    digest.
    """
    argv = _trial_argv(image[0], image[1], request)
    names = read_strings(request, "modules", MAX_MODULES, [])
    record = context.layout.image(json.dumps([boot_id(), image, argv, names]))
    lasting = read_field(request, "lasting", bool, False)
    found = _remembered(record) if lasting else {}
    if not found:
        found = _modules_inside(argv, names)
        if lasting:
            write_atomically(record, json.dumps(found).encode())
    return {name: version for name, version in found.items() if name != "sys"}


def _remembered(record: str) -> dict[str, str]:
    """What was written there; nothing where it cannot be read."""
    try:
        with open(record) as file:
            told = json.loads(file.read(MAX_RECORD))
        return {str(name): str(value) for name, value in told.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _trial_argv(program: str, image: str, request: Mapping[str, Any]) -> list[str]:
    gpus = read_strings(request, "gpus", MAX_WORDS, []) if os.path.exists(GPU_DEVICE) else []
    places = {"{program}": [program], "{image}": [image], "{gpus}": gpus}
    places["--user={user}"] = [f"--user={os.geteuid()}:{os.getegid()}"]
    inside = read_strings(request, "inside", MAX_WORDS)
    return [part for word in inside for part in places.get(word, [word])]


def _modules_inside(argv: list[str], names: list[str]) -> dict[str, str]:
    """Asked in a container such as the ranks will have; ``sys`` is among them."""
    notes: list[str] = []
    modules = find_modules(argv, ["sys", *names], notes, environment())
    if "sys" not in modules:
        said = complaint("\n".join(notes))
        raise EngineError(f"no working Python {argv[-1]} in the image: {said}")
    return modules
