"""An image made ready on this node: there or pulled, with its digest and what its Python has."""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress

from orchestrator.node_agent.base.agent_errors import BAD_REQUEST, AgentFault
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
    is_podman,
)
from orchestrator.node_agent.facts.interpreter import MAX_MODULES
from orchestrator.node_agent.facts.module_versions import SEARCH_PATH, find_modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from orchestrator.node_agent.base.call import Context

MAX_WORDS = 1024
ID = re.compile(r"(?:sha256:)?([0-9a-f]{64})\Z")
CHUNK_BYTES = 1024 * 1024
MAX_RECORD = 64 * 1024
GPU_DEVICE = "/dev/nvidiactl"
EVENT = "image"
OTHER_NAME = "it is podman by another name"
# As podman and docker end that could not start the container.
UNSTARTED = re.compile(r"ended with 12[56]:")
STATE = "/state"  # beside modules in what is remembered: none is called so


def prepare_image(context: Context, request: Mapping[str, Any]) -> dict[str, Any]:
    """What ``core.containers`` asks -> the engine's program, the image's reference and digest,
    and the modules that its Python finds. Asked to ``look``, it brings no image, and says if there
    is none. Raises :class:`AgentFault` with the engine's own words.
    """
    engine, file = read_field(request, "engine", str), read_field(request, "file", str, "")
    try:
        program = find_program(engine)
        reference = expand_path(file) if file else _reference(context, program, request)
        if not reference:
            return {"absent": True}
        digest = _file_digest(context, reference) if file else _digest_of(reference)
        modules = _modules(context, [program, reference, digest], request)
    except EngineError as error:
        other = f"{OTHER_NAME}: " if engine == "docker" and is_podman() else ""
        raise AgentFault(NO_CONTAINER, f"{engine}: {other}{error}") from error
    return {"program": program, "reference": reference, "digest": digest, "modules": modules}


def _reference(context: Context, program: str, request: Mapping[str, Any]) -> str:
    """The image's id, "" = a look at one that is not there. What the engine has is not asked of a
    registry.
    """
    show = read_strings(request, "show", MAX_WORDS, [])
    with suppress(EngineError):
        if show:
            return _id_in(ask([program, *show]))
    if read_field(request, "look", bool, False):
        return ""
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
    """What its Python finds; asked again after a boot, where something that it reads of the mounts
    changed, and where an option may bring in anything. ``image``: program, reference, digest.
    """
    argv = _trial_argv(image[0], image[1], request)
    names = read_strings(request, "modules", MAX_MODULES, [])
    mounts = _mounts(image[0], request)
    record = context.layout.image(json.dumps([boot_id(), image, argv, names]))
    lasting = read_field(request, "lasting", bool, False)
    found = _remembered(record) if lasting else {}
    if not found or found.get(STATE) != state_of(found.get(SEARCH_PATH, ""), mounts):
        found = _modules_inside(argv, [SEARCH_PATH, *names])
        state = state_of(found.get(SEARCH_PATH, ""), mounts)
        if lasting and state:
            write_atomically(record, json.dumps({**found, STATE: state}).encode())
    return {name: found[name] for name in names if name in found}


def _mounts(program: str, request: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(source, target), the deepest target first."""
    asked = read_field(request, "mounts", list, [])
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in asked):
        raise AgentFault(BAD_REQUEST, "not mounts")
    found = [(str(source), str(target)) for source, target in asked]
    if os.path.basename(program) == "apptainer":  # its containers have the user's home
        found.append((os.path.expanduser("~"),) * 2)
    return sorted(found, key=lambda pair: -len(pair[1]))


def state_of(search_path: str, mounts: list[tuple[str, str]]) -> str:
    """What the mounts are, and those places on them where an interpreter looks for modules: who
    installs something there changes it. "" where one of them cannot be seen from outside.
    """
    places = [source for source, _ in mounts]
    places += seen_outside(search_path.split(os.pathsep), mounts)
    try:
        states = [os.stat(place) for place in places]
    except OSError:
        return ""
    mounted = len(mounts)
    return json.dumps(
        [[s.st_dev, s.st_ino] for s in states[:mounted]] + [s.st_mtime_ns for s in states[mounted:]]
    )


def seen_outside(paths: list[str], mounts: list[tuple[str, str]]) -> Iterator[str]:
    """Where paths in the container are on the node; those of the image itself are nowhere."""
    for path in paths:
        for source, target in mounts:
            rest = os.path.relpath(path, target) if path else ".."
            if rest.split(os.sep)[0] != os.pardir:
                yield os.path.join(source, rest)
                break


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
        if UNSTARTED.search(said):
            raise EngineError(f"no container of the image can be started: {said}")
        raise EngineError(f"no working Python {argv[-1]} in the image: {said}")
    return modules
