"""The shape of `container:` in inventories and workloads, and what it becomes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from orchestrator.core.model.container import ContainerSpec, Engine, Mount
from orchestrator.parsing.inputs.validation import Strict

MAX_TEXT = 4096
MOUNT = re.compile(r"(?P<source>/[^:,]*)(?::(?P<target>/[^:,]*))?(?P<read_only>:ro)?")
DECIDED = frozenset(
    "--name --rm --detach -d --network --net --pid --ipc --entrypoint --workdir -w --env -e "
    "--user -u --userns --log-driver --pull".split()
)
SHARED_MEMORY = "--shm-size"

if TYPE_CHECKING:
    EngineName = str
else:  # derived, so that an engine is declared once
    EngineName = Literal[tuple(engine.value for engine in Engine)]


def _check_mount(text: str) -> str:
    if not text.isprintable() or not MOUNT.fullmatch(text):
        raise ValueError(f"not a mount: {text[:80]!r}; write /on/node[:/in/container][:ro]")
    return text


def _check_option(text: str) -> str:
    if not text.isprintable() or not text.startswith("-"):
        raise ValueError(f"not an option: {text[:80]!r}; write it as one word, --name=value")
    if text.partition("=")[0] in DECIDED:
        raise ValueError(f"{text.partition('=')[0]} is decided by the plan")
    if text.partition("=")[0] == SHARED_MEMORY:
        raise ValueError(f"{SHARED_MEMORY}: leave it out, containers have the node's shared memory")
    return text


def _check_image(text: str) -> str:
    if not text or not text.isprintable() or " " in text or text.startswith("-"):
        raise ValueError(f"not the name of an image: {text[:80]!r}")
    return text


ImageName = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_check_image)]
MountText = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_check_mount)]
OptionText = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_check_option)]


class ContainerEntry(Strict):
    """What ranks run in; a text T is short for {image: T}."""

    image: ImageName | None = Field(
        default=None,
        description="podman, docker: a name, also with @sha256:...; podman: oci-archive:/FILE; "
        "apptainer, enroot: a file on the nodes; none = no container",
    )
    engine: EngineName | None = Field(
        default=None, description="What runs it (default podman); the engine must be on the nodes"
    )
    mounts: list[MountText] = Field(
        default_factory=list,
        max_length=64,
        description="Folders of the node in the container: /on/node[:/in/container][:ro]",
    )
    options: list[OptionText] = Field(
        default_factory=list,
        max_length=64,
        description="Options for the engine besides those of the plan, one word each",
    )


def _normalise_container(value: Any) -> Any:
    return {"image": value} if isinstance(value, str) else value


Container = Annotated[
    ContainerEntry,
    BeforeValidator(_normalise_container, json_schema_input_type=str | ContainerEntry),
]


def container_spec(entry: ContainerEntry | None) -> ContainerSpec | None:
    """``entry`` as the model has it."""
    if entry is None:
        return None
    return ContainerSpec(
        image=entry.image or "",
        engine=Engine(entry.engine) if entry.engine else None,
        mounts=tuple(map(_mount, entry.mounts)),
        options=tuple(entry.options),
    )


def _mount(text: str) -> Mount:
    found = MOUNT.fullmatch(text)
    assert found is not None, "validated"
    source = found["source"]
    target = found["target"] or source
    return Mount(source=source, target=target, read_only=found["read_only"] is not None)


def merged_container(
    defaults: ContainerEntry | None, node: ContainerEntry | None
) -> ContainerEntry | None:
    """``node`` over ``defaults``, field by field."""
    if defaults is None or node is None:
        return node or defaults
    return defaults.model_copy(update={n: getattr(node, n) for n in node.model_fields_set})
