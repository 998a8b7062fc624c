"""``apptainer`` and ``enroot``: the image is a file, and a container a process like any other.

Options as documented: https://apptainer.org/docs/user/main/cli/apptainer_exec.html, and
doc/cmd/start.md of https://github.com/NVIDIA/enroot. Both share the node's network,
processes and IPC, and show its /dev with InfiniBand's devices, unless a site has changed that.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.containers.engine import ContainerEngine, ContainerShare
from orchestrator.core.model.container import Engine

# enroot has no option for the directory; its containers are started by a shell in any case.
ENTER = ("sh", "-c", 'cd "$0" && exec "$@"')
PATH_STARTS = ("/", "~/", "$")


def run_apptainer(share: ContainerShare) -> tuple[str, ...]:
    """Its containers have the environment that it is started with, by default."""
    return (
        *(share.program, "exec"),
        *((f"--pwd={share.directory}",) if share.directory else ()),
        *(f"--bind={m.source}:{m.target}:{'ro' if m.read_only else 'rw'}" for m in share.mounts),
        *share.gpus,
        *share.options,
        share.image,
        *share.command,
    )


def run_enroot(share: ContainerShare) -> tuple[str, ...]:
    """What the image's own start-up script, ``/etc/rc``, does comes before the command."""
    enter = (*ENTER, share.directory) if share.directory else ()
    return (
        *(share.program, "start", "--rw"),
        *_enroot_mounts(share),
        *(word for name in share.variables for word in ("--env", name)),
        *share.gpus,
        *(("--env", "MELLANOX_VISIBLE_DEVICES=all") if share.infiniband else ()),
        *share.options,
        *("--", share.image, *enter, *share.command),
    )


def _enroot_mounts(share: ContainerShare) -> Iterator[str]:
    """Fields of an fstab: source, target, kind, options."""
    for mount in share.mounts:
        ro = ",ro" if mount.read_only else ""
        yield from ("--mount", f"{mount.source}:{mount.target}:none:x-create=auto,rbind{ro}")


def apptainer_misuse(image: str) -> str:
    """Why apptainer cannot run it, or ""."""
    return _no_file(image, "image.sif", "apptainer pull")


def enroot_misuse(image: str) -> str:
    """Why enroot cannot run it, or ""."""
    return _no_file(image, "image.sqsh", "enroot import --output")


def _no_file(image: str, name: str, command: str) -> str:
    if image.startswith(PATH_STARTS):
        return ""
    return (
        "it runs a file that is on the nodes, named by its absolute path: "
        f"{command} /shared/{name} docker://... makes one"
    )


APPTAINER = ContainerEngine(
    name=Engine.APPTAINER,
    run=run_apptainer,
    gpus=("--nv",),
    find_misuse=apptainer_misuse,
    gpu_remedy="see whether `apptainer exec --nv IMAGE nvidia-smi` works on that node",
)
ENROOT = ContainerEngine(
    name=Engine.ENROOT,
    run=run_enroot,
    gpus=(
        *("--env", "NVIDIA_VISIBLE_DEVICES=all"),
        *("--env", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"),
    ),
    find_misuse=enroot_misuse,
    gpu_remedy="install libnvidia-container-tools on that node, for enroot's hook 98-nvidia.sh",
)
