"""Every rule that we know. A new one needs an id of its own and a folder of that name below
``tests/golden/diagnosis``.
"""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import Rule
from orchestrator.core.diagnosis.rules.launch import (
    launchers,
    mpi,
    ray_failures,
    slurm_failures,
    ssh,
)
from orchestrator.core.diagnosis.rules.machine import (
    containers,
    cuda,
    disks_and_limits,
    ended_by_signal,
    gpu_memory,
    operating_system,
    xid,
)
from orchestrator.core.diagnosis.rules.network import (
    collectives,
    infiniband,
    nccl,
    rendezvous_failures,
    servers,
    sockets,
)
from orchestrator.core.diagnosis.rules.program import (
    building,
    exceptions,
    hub,
    not_found,
    serving,
    training,
)

DOMAINS: dict[str, tuple[Rule, ...]] = {
    "InfiniBand and RoCE": infiniband.RULES,
    "Sockets": sockets.RULES,
    "Names and servers": servers.RULES,
    "NCCL": nccl.RULES,
    "Rendezvous": rendezvous_failures.RULES,
    "Collectives": collectives.RULES,
    "Slurm": slurm_failures.RULES,
    "MPI": mpi.RULES,
    "Launchers": launchers.RULES,
    "Launch over SSH": ssh.RULES,
    "Ray": ray_failures.RULES,
    "Servers of models": serving.RULES,
    "Trainers": training.RULES,
    "GPU memory": gpu_memory.RULES,
    "CUDA": cuda.RULES,
    "Kernel (Xid)": xid.RULES,
    "Host": operating_system.RULES,
    "Signals": ended_by_signal.RULES,
    "Files and limits": disks_and_limits.RULES,
    "Containers and services": containers.RULES,
    "Builds and packages": building.RULES,
    "Models and data": hub.RULES,
    "Modules and files": not_found.RULES,
    "Program": exceptions.RULES,
}
RULES: tuple[Rule, ...] = tuple(rule for rules in DOMAINS.values() for rule in rules)
BY_ID: dict[str, Rule] = {rule.id: rule for rule in RULES}
