"""What a node is asked of the image that its ranks will run in. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.containers import engine_of
from orchestrator.core.containers.containing import container_interpreter
from orchestrator.core.containers.engine import ContainerShare
from orchestrator.core.model.inventory import NodeSpec


def image_question(node: NodeSpec, modules: Sequence[str]) -> dict[str, object]:
    """The fields of the agent's operation ``image``. The interpreter is tried with the mounts,
    options and GPUs that the ranks will have: what an engine cannot do is found before the launch.
    Without mounts and options what that finds lasts as long as the image, and is asked once.
    The agent fills in ``{program}``, ``{image}`` and, on a node that has any, ``{gpus}``.
    """
    spec = node.container
    assert spec is not None, "asked of nodes that run containers"
    engine = engine_of(spec)
    pull = engine.pull(spec.image)
    trial = ContainerShare(
        program="{program}",
        image="{image}",
        command=(container_interpreter(node),),
        mounts=spec.mounts,
        gpus=("{gpus}",),
        options=spec.options,
    )
    return {
        "engine": engine.name.value,
        "show": list(engine.show(spec.image)),
        "pull": list(pull),
        "file": "" if pull else spec.image,
        "inside": list(engine.run(trial)),
        "gpus": [] if node.gpus.count == 0 else list(engine.gpus),
        "modules": list(modules),
        "lasting": not spec.mounts and not spec.options,
    }
