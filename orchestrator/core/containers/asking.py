"""What a node is asked of the image that its ranks will run in. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.containers import engine_of
from orchestrator.core.containers.containing import container_interpreter
from orchestrator.core.containers.engine import ContainerShare
from orchestrator.core.model.inventory import NodeSpec

# Options of podman, docker and apptainer that change no file that a Python reads.
FLAGS = frozenset(
    "--init --privileged --read-only --cleanenv --contain --containall --no-home --fakeroot "
    "--writable-tmpfs --no-hosts --oom-kill-disable --nv --rocm".split()
)
LIMITS = frozenset(
    "--cpus --cpu-shares --cpu-period --cpu-quota --cpuset-cpus --cpuset-mems --memory "
    "--memory-reservation --memory-swap --memory-swappiness --ulimit --cap-add "
    "--cap-drop --device --gpus --group-add --hostname --label --annotation --add-host --dns "
    "--dns-search --sysctl --stop-timeout --oom-score-adj --blkio-weight --runtime "
    "--security-opt --platform --device-cgroup-rule --tmpfs".split()
)


def image_question(node: NodeSpec, modules: Sequence[str]) -> dict[str, object]:
    """The fields of the agent's operation ``image``. The interpreter is tried with the mounts,
    options and GPUs that the ranks will have: what an engine cannot do is found before the launch.
    What that finds lasts as long as the image and what its Python reads of the mounts, unless an
    option may bring in other files. The agent fills in ``{program}``, ``{image}`` and, on a node
    that has any, ``{gpus}``.
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
        "mounts": [[mount.source, mount.target] for mount in spec.mounts],
        "lasting": all(map(_brings_no_files, spec.options)),
    }


def _brings_no_files(option: str) -> bool:
    """Of options in two words nothing is known."""
    name, equals, _ = option.partition("=")
    return option in FLAGS or (bool(equals) and name in LIMITS)
