"""Containers and services: Docker, Kubernetes, Apptainer, enroot, systemd."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Confidence,
    Domain,
    LogRole,
    Rule,
    sign,
)

# What an engine's error ends with says most: ``... failed: permission denied: unknown.``
_PART = r"(?:(?!: ).){1,100}"
_LAST = rf"(?:.{{0,300}}?: (?P<detail>{_PART}(?:: {_PART})?)(?:: unknown)?\.?$)?"

RULES = (
    Rule(
        id="CONT-GPU-001",
        title="The container gets no GPU",
        domain=Domain.LAUNCH,
        cause="the container engine on {where} cannot pass GPUs on ({detail})",
        remedy="install nvidia-container-toolkit, nvidia-ctk runtime configure --runtime=docker, "
        "restart the engine; docker run --gpus all IMAGE nvidia-smi",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=86,
        signs=(
            sign(
                "could not select device driver",
                r"(?P<detail>could not select device driver (?:.{0,60} )?with "
                r"capabilities: .{1,20})",
            ),
            sign(
                "runtime name: nvidia", r"(?P<detail>[Uu]nknown (?:or invalid )?runtime name: nv)"
            ),
            sign(
                "nvidia-container-cli",
                r"nvidia-container-cli: (?P<detail>(?!requirement|.{0,60}version mismatch)"
                r".{1,120})",
            ),
            # Devices are taken from a running container when its cgroup is written anew.
            sign(
                "ailed to initialize NVML: Unknown Error",
                r"(?P<detail>NVML: Unknown Error)",
                confidence=Confidence.LIKELY,
            ),
            sign("unresolvable CDI devices", r"(?P<detail>unresolvable CDI devices.{0,60})"),
        ),
        defaults={"detail": "no GPU runtime"},
        references=("nvidia-container-toolkit",),
    ),
    Rule(
        id="CONT-IMAGE-001",
        title="The image cannot be fetched or opened",
        domain=Domain.LAUNCH,
        cause="{who} cannot get its container image: {detail}",
        remedy="name and tag of the image (enroot takes only ./FILE or /FILE for a file), docker "
        "login (enroot: ~/.config/enroot/.credentials), and a file system that this node mounts",
        confidence=Confidence.CERTAIN,
        weight=84,
        signs=(
            sign("pull access denied", r"(?P<detail>pull access denied for \S{1,120})"),
            sign("manifest for ", r"(?P<detail>manifest for \S{1,120} not found)"),
            sign("manifest unknown", r"(?P<detail>manifest unknown.{0,60})"),
            sign("ImagePullBackOff", r"(?P<detail>ImagePullBackOff)"),
            sign("ErrImagePull", r"(?P<detail>ErrImagePull)"),
            sign("ailed to pull image", r"(?P<detail>[Ff]ailed to pull image .{1,120})"),
            sign("could not open image", r"(?P<detail>could not open image .{1,120})"),
            sign(
                "unauthorized: authentication required",
                r"(?P<detail>unauthorized: authentication required)",
            ),
            sign("toomanyrequests", r"(?P<detail>toomanyrequests.{0,60})"),
            # enroot asks a registry for whatever is no path, and fails on what that answers.
            sign(
                "[ERROR] ",
                r"pyxis: {1,8}\[ERROR\] (?P<detail>(?:URL \S{1,120} returned error|Could not "
                r"process JSON input).{0,60})",
            ),
        ),
        defaults={"detail": "image"},
        references=("Docker", "Kubernetes", "enroot", "Apptainer"),
    ),
    Rule(
        id="CONT-DAEMON-001",
        title="The container engine does not answer",
        domain=Domain.LAUNCH,
        cause="{who} cannot use the container engine ({detail})",
        remedy="systemctl status docker; the account must be in the group docker, or use a "
        "rootless "
        "engine",
        confidence=Confidence.CERTAIN,
        weight=86,
        signs=(
            sign(
                "annot connect to the Docker daemon",
                r"(?P<detail>[Cc]annot connect to the Docker daemon)",
            ),
            sign(
                "trying to connect to the Docker daemon",
                r"(?P<detail>permission denied while trying to connect to the Docker daemon)",
            ),
        ),
        defaults={"detail": "no answer"},
        references=("Docker",),
    ),
    Rule(
        id="K8S-SCHED-001",
        title="No node fits the pod",
        domain=Domain.LAUNCH,
        cause="Kubernetes finds no node for the pod: {detail}",
        remedy="kubectl describe nodes: allocatable GPUs, taints and labels; the request must fit "
        "one node",
        confidence=Confidence.CERTAIN,
        weight=82,
        signs=(
            sign("nodes are available: ", r"(?P<detail>0/\d{1,5} nodes are available: .{1,120})"),
            sign("exceeded quota: ", r"(?P<detail>exceeded quota: .{1,160})"),
        ),
        defaults={"detail": "unschedulable"},
        references=("Kubernetes",),
    ),
    Rule(
        id="K8S-EVICT-001",
        title="The pod was evicted",
        domain=Domain.HOST,
        cause="Kubernetes evicted the pod on {where}: the node ran low on {resource}",
        remedy="requests and limits that hold (ephemeral-storage, memory); checkpoints on a volume",
        advice=Advice.RETRY,
        confidence=Confidence.CERTAIN,
        weight=84,
        signs=(
            sign(
                "low on resource",
                r"node was low on resource: (?P<resource>[\w.-]{1,40})",
            ),
            sign(
                "ephemeral local storage usage exceeds",
                r"(?P<resource>ephemeral local storage) usage exceeds",
            ),
        ),
        defaults={"resource": "a resource"},
        references=("Kubernetes",),
    ),
    Rule(
        id="K8S-PROBE-001",
        title="A liveness probe ended the container",
        domain=Domain.LAUNCH,
        cause="Kubernetes restarts container {container}: it did not answer its liveness probe",
        remedy="a startup probe, or a longer initialDelaySeconds: the model has to load first",
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(
            sign(
                "failed liveness probe",
                r"Container (?P<container>[\w.-]{1,63}) failed liveness probe, will be restarted",
            ),
        ),
        defaults={"container": "of the pod"},
        references=("Kubernetes",),
    ),
    Rule(
        id="SYSD-EXEC-001",
        title="systemd cannot start the program",
        domain=Domain.LAUNCH,
        cause="systemd on {where} could not start the program ({detail})",
        remedy="ExecStart must name an existing executable by its absolute path, WorkingDirectory "
        "an existing folder, User an account of this node",
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(
            sign("status=203/EXEC"),
            sign("status=200/CHDIR", r"status=(?P<detail>200/CHDIR)"),
            sign("status=217/USER", r"status=(?P<detail>217/USER)"),
            sign("Failed at step", r"(?P<detail>Failed at step \w{1,20} spawning .{1,120})"),
        ),
        defaults={"detail": "203/EXEC"},
        references=("systemd.exec",),
    ),
    Rule(
        id="CONT-START-001",
        title="The container could not be started",
        domain=Domain.LAUNCH,
        cause="{who} could not start its container ({detail})",
        remedy="the engine's lines above; the image by itself: srun --container-image=IMAGE true, "
        "docker run --rm IMAGE true",
        role=LogRole.VAGUE,
        advice=Advice.RETRY,
        weight=44,
        signs=(
            # What the wrapper says of itself has no reason; the log that it prints has.
            sign("failed to import docker image", r"pyxis: failed to import docker image"),
            sign("couldn't start container", r"pyxis: couldn't start container"),
            sign("container start failed"),
            sign("pyxis:  ", r"pyxis: {2,8}(?:\[ERROR\] )?(?P<detail>(?!\[INFO\])\S.{5,160})"),
            sign(
                "pyxis: ",
                r"error: pyxis: (?P<detail>(?!child |failed to import|couldn't start|printing )"
                r"[\w-].{5,160})",
            ),
            sign("container creation failed", rf"container creation failed{_LAST}"),
            sign("CreateContainerError", r"(?P<detail>CreateContainerError)"),
            sign("OCI runtime create failed", rf"OCI runtime create failed{_LAST}"),
            sign("runc create failed", rf"runc create failed{_LAST}"),
            sign("failed to start container", r"(?P<detail>failed to start container)"),
        ),
        defaults={"detail": "no reason given"},
        consequence="could not start a container",
        references=("pyxis", "Docker", "Kubernetes"),
    ),
    Rule(
        id="CONT-PROG-001",
        title="The image lacks the program",
        domain=Domain.LAUNCH,
        cause="{who} could not start its container: the image has no {path}",
        remedy="an image with that program, srun --no-container-entrypoint where the entry point "
        "is what is missing, or a mount that does not hide it",
        confidence=Confidence.CERTAIN,
        weight=82,
        signs=(
            sign(
                "switchroot: failed to execute: ",
                r"switchroot: failed to execute: (?P<path>\S{1,200}): No such file",
            ),
        ),
        defaults={"path": "the program"},
        references=("enroot", "pyxis"),
    ),
    Rule(
        id="K8S-VOL-001",
        title="A volume cannot be mounted",
        domain=Domain.HOST,
        cause="Kubernetes cannot mount a volume of the pod ({detail})",
        remedy="kubectl describe pod and pvc: does the claim exist and is it bound, and does the "
        "node reach the storage",
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(
            sign("MountVolume.", r"(?P<detail>MountVolume\.\w{1,20} failed for volume \S{1,80})"),
            sign(
                "nable to attach or mount volumes",
                r"(?P<detail>nable to attach or mount volumes)",
            ),
        ),
        defaults={"detail": "mount failed"},
        references=("Kubernetes",),
    ),
)
