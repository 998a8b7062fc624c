"""``podman`` and ``docker``: the same command line but for a few options.

Options as `podman run` (podman-run(1), version 4.3) and `docker run` document them
(https://docs.docker.com/reference/cli/docker/container/run/).

The container shares the node's processes, network and IPC, so that ranks have the process ids that
the node's agent sees, meet at the addresses of the node, and use its shared memory.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.containers.engine import ContainerEngine, ContainerShare
from orchestrator.core.model.container import Engine, Mount

ARCHIVES = ("oci-archive:", "docker-archive:")
SHARED = (
    "--network=host",
    "--pid=host",
    "--ipc=host",
    # On SELinux a bind mount would else have to be relabelled, which outlives the container.
    "--security-opt=label=disable",
    # Both engines may count threads, of which loaders of data have thousands.
    "--pids-limit=-1",
    # Ranks write their own logs; the engine would keep all of it a second time.
    "--log-driver=none",
    "--pull=never",
    "--entrypoint=",
)


def run_podman(share: ContainerShare) -> tuple[str, ...]:
    """Root in a container of a rootless podman is the user outside: what it writes is the user's.
    Limits such as memlock are those of the process that starts it.
    """
    return _run(share, "--user=0:0")


def run_docker(share: ContainerShare) -> tuple[str, ...]:
    """Its daemon starts the container, with the daemon's limits, and as root unless told else."""
    return _run(share, "--user={user}", "--ulimit=memlock=-1")


def _run(share: ContainerShare, *own: str) -> tuple[str, ...]:
    return (
        *(share.program, "run", "--rm", *SHARED, *own),
        *_place(share),
        *(f"--mount={_mount(mount)}" for mount in share.mounts),
        *(f"--env={name}" for name in share.variables),
        *share.gpus,
        *(("--device=/dev/infiniband", "--cap-add=IPC_LOCK") if share.infiniband else ()),
        *share.options,
        share.image,
        *share.command,
    )


def _place(share: ContainerShare) -> Iterator[str]:
    if share.name:
        yield f"--name={share.name}"
    if share.directory:
        yield f"--workdir={share.directory}"
    yield from (f"--label={label}" for label in share.labels)


def _mount(mount: Mount) -> str:
    ends = f"type=bind,source={mount.source},destination={mount.target}"
    return f"{ends},readonly" if mount.read_only else ends


def _show(image: str) -> tuple[str, ...]:
    """The id is a digest of the configuration, which has those of all layers."""
    if image.startswith(ARCHIVES):
        return ()
    return ("image", "inspect", "--format={{.Id}}", image)


def _pull(image: str) -> tuple[str, ...]:
    return ("pull", image)


def podman_misuse(image: str) -> str:
    """Why podman cannot run it, or ""."""
    path = next((image.removeprefix(a) for a in ARCHIVES if image.startswith(a)), "/")
    return "" if path.startswith("/") else "an archive is named by its absolute path on the nodes"


def docker_misuse(image: str) -> str:
    """Why docker cannot run it, or ""."""
    if not image.startswith(ARCHIVES):
        return ""
    path = image.partition(":")[2]
    return f"docker runs no archive: docker load --input {path} on the nodes, then name the image"


TOOLKIT = "install nvidia-container-toolkit on that node, then as root there: nvidia-ctk "

PODMAN = ContainerEngine(
    name=Engine.PODMAN,
    run=run_podman,
    gpus=("--device=nvidia.com/gpu=all",),
    find_misuse=podman_misuse,
    gpu_remedy=TOOLKIT + "cdi generate --output=/etc/cdi/nvidia.yaml",
    show=_show,
    pull=_pull,
    keeps=True,
)
DOCKER = ContainerEngine(
    name=Engine.DOCKER,
    run=run_docker,
    gpus=("--gpus=all",),
    find_misuse=docker_misuse,
    gpu_remedy=TOOLKIT + "runtime configure --runtime=docker && systemctl restart docker",
    show=_show,
    pull=_pull,
    keeps=True,
)
