"""What every engine is: pure functions that make its command lines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.core.model.container import Engine, Mount


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerShare:
    """One container of a node. ``variables`` are names: the engine takes the values from its own
    environment, so that no secret is seen in a list of processes. ``name`` and ``directory`` may be
    empty: the engine chooses. ``gpus`` and ``infiniband``: whether the node's devices are shown.
    """

    program: str
    image: str
    command: tuple[str, ...]
    name: str = ""
    directory: str = ""
    mounts: tuple[Mount, ...] = ()
    variables: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    infiniband: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEngine:
    """``run``: the argument vector that runs the share's command in its container, as a child that
    hands signals on and ends as the command does. ``gpus``: the words that show all GPUs.
    ``show``: prints the digest of an image, () = it is a file, whose content is digested.
    ``pull``: brings the image; its last line of output is the digest where ``show`` cannot tell.
    ``find_misuse``: why a name is none of an image, or "". ``keeps``: a container outlives the
    command that started it, and is removed by its name. ``gpu_remedy``: where GPUs cannot be shown.
    """

    name: Engine
    run: Callable[[ContainerShare], tuple[str, ...]]
    gpus: tuple[str, ...]
    find_misuse: Callable[[str], str]
    gpu_remedy: str
    show: Callable[[str], tuple[str, ...]] = lambda _: ()
    pull: Callable[[str], tuple[str, ...]] = lambda _: ()
    keeps: bool = False
