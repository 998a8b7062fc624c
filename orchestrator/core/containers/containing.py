"""A node's processes become containers: their command lines are wrapped, and nothing else changes.

Code, folders and the agent's rank shim are mounted at the paths that they have on the node. Each
process is in the shim, which records exactly how the rank ended: the engine tells less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from orchestrator.core.base.problem import Problem
from orchestrator.core.containers import engine_of
from orchestrator.core.containers.engine import ContainerShare
from orchestrator.core.launchers.launcher import RANK_SHIM
from orchestrator.core.model.container import ContainerImage, ContainerSpec, Mount
from orchestrator.core.model.inventory import NodeSpec, PythonKind
from orchestrator.core.model.plan import NodePlan, ProcessPlan, Variable

# What the agent itself gives every process; names as node_agent/attempt/launch.py has them.
MARKERS = (
    "ORCHESTRATE_RUN_ID",
    "ORCHESTRATE_NODE",
    "ORCHESTRATE_ATTEMPT",
    "ORCHESTRATE_ATTEMPT_DIR",
    "ORCHESTRATE_REPORT_DIR",
    "ORCHESTRATE_OUTPUT_DIR",
    "ORCHESTRATE_EXCHANGE_DIR",
    "ORCHESTRATE_CHECKPOINT_DIR",
    "ORCHESTRATE_FACTS",
    "ORCHESTRATE_GRACE_S",
)
WRITTEN = ("{attempt}", "{checkpoints}")
AGENT = "{agent}"
READ = (AGENT, "{snapshot}")
AGENT_PYTHON = "{agent_python}"
# As the agent fills it in: a name that no other attempt's containers have.
NAME = "{container}"
# Which process of which trial it is: the coordinator fills that in.
TRIAL = "{trial}"
# What only a rank's process, or that of a trial, has.
RANK_VARIABLES = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT"),
)
DIFFERS = "OR-CONTAINER-003"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainedNode:
    """Where the processes of a node run. ``image`` None: the node was not asked. ``directory`` is
    that of the ranks, ``env`` what all of them get.
    """

    spec: ContainerSpec
    image: ContainerImage | None
    interpreter: str
    directory: str
    env: Sequence[Variable]
    labels: tuple[str, ...] = ()
    gpus: bool = False
    infiniband: bool = False

    def wrap(self, process: ProcessPlan) -> ProcessPlan:
        """``process`` in a container of its own. A rank is one under the shim, as launchers' are:
        the process that the supervisor starts is the engine's.
        """
        if process.rank is None:
            return replace(process, argv=self._run(process, process.argv))
        argv = self._run(process, (*RANK_SHIM, *process.argv))
        return replace(process, label=f"container-{process.rank}", rank=None, argv=argv)

    def trial_words(self) -> tuple[str, ...]:
        """What comes before a trial's command. The folders of the attempt are not there yet."""
        agent = Mount(source=AGENT, target=AGENT, read_only=True)
        mounts = (agent, *self.spec.mounts)
        return self._engine_words((), f"{NAME}-{TRIAL}", "/", mounts, RANK_VARIABLES)

    def _run(self, process: ProcessPlan, argv: tuple[str, ...]) -> tuple[str, ...]:
        here = (self.interpreter if word == AGENT_PYTHON else word for word in argv)
        mounts = (*_own_mounts(), *self.spec.mounts)
        name = f"{NAME}-{process.label}"
        own = tuple(variable.name for variable in process.env)
        return self._engine_words(tuple(here), name, self.directory, mounts, own)

    def _engine_words(
        self,
        command: tuple[str, ...],
        name: str,
        directory: str,
        mounts: tuple[Mount, ...],
        variables: Sequence[str],
    ) -> tuple[str, ...]:
        engine = engine_of(self.spec)
        share = ContainerShare(
            program=self.image.program if self.image else engine.name.value,
            image=self.image.reference if self.image else self.spec.image,
            command=command,
            name=name,
            directory=directory,
            mounts=mounts,
            variables=tuple(_names(self.env, variables)),
            labels=self.labels,
            gpus=engine.gpus if self.gpus else (),
            infiniband=self.infiniband,
            options=self.spec.options,
        )
        return engine.run(share)


def _own_mounts() -> Iterator[Mount]:
    for path in READ:
        yield Mount(source=path, target=path, read_only=True)
    for path in WRITTEN:
        yield Mount(source=path, target=path)


def trial_command(share: NodePlan, trial: str, command: tuple[str, ...]) -> tuple[str, ...]:
    """``command`` of the process ``trial``, in a container where the node's ranks are in one."""
    return (*(word.replace(TRIAL, trial) for word in share.trial), *command)


def _names(env: Sequence[Variable], own: Sequence[str]) -> Iterator[str]:
    """Each name once."""
    yield from dict.fromkeys((*MARKERS, *(variable.name for variable in env), *own))


def container_interpreter(node: NodeSpec) -> str:
    """The ranks' Python in the image, by the node's ``python``. What would be built on the node is
    not: the image is the environment.
    """
    python = node.python
    match python.kind:
        case PythonKind.INTERPRETER:
            return python.value
        case PythonKind.VENV:
            return f"{python.value.rstrip('/')}/bin/python"
        case PythonKind.CONDA:
            prefix = python.value if "/" in python.value else _conda_prefix(python.value)
            return f"{prefix.rstrip('/')}/bin/python"
        case PythonKind.REQUIREMENTS | PythonKind.WORKLOAD:
            return python.base


def _conda_prefix(name: str) -> str:
    """Where images keep conda."""
    return "/opt/conda" if name == "base" else f"/opt/conda/envs/{name}"


def different_images(images: Sequence[tuple[str, ContainerImage | None]]) -> Problem | None:
    """What is wrong if nodes, by name, have images of other content than each other."""
    nodes: dict[str, list[str]] = {}
    for name, image in images:
        if image is not None:
            nodes.setdefault(image.digest, []).append(name)
    if len(nodes) < 2:
        return None
    told = "; ".join(f"{', '.join(names)}: {digest}" for digest, names in nodes.items())
    return Problem(
        id=DIFFERS,
        message=f"the nodes do not have the same image: {told}",
        remedy="pull it again on those that differ, or name it by its digest: IMAGE@sha256:...",
    )
