"""``slurm``: Slurm gives the nodes and starts one task on each, which becomes that node's torchrun.

On every node the supervisor starts an *offer* that stands for the launcher: it hands torchrun's
command and environment to the task when that comes, and ends as torchrun ends. On the first node it
starts the *submission*, too, which asks for the job. No path has to be the same on two nodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from orchestrator.core.launchers.launcher import Launcher, LaunchSpec, Scheduler
from orchestrator.core.launchers.slurm_job import NAME, SlurmJob, slurm_job, taken, within
from orchestrator.core.launchers.torchrun import torchrun
from orchestrator.core.model.plan import ProcessPlan

AGENT_PYTHON = ("{agent_python}", "-I", "-S")
# What the plan decides: another word from the user would make two truths of it.
DECIDED = frozenset(
    "chdir error export export-file input job-name label multi-prog nodefile nodelist nodes ntasks "
    "ntasks-per-node output relative".split()
)


def slurm(spec: LaunchSpec) -> tuple[ProcessPlan, ...]:
    """The offer, and on the first node the submission."""
    job = spec.job
    assert job is not None, "planning makes the job"
    (launcher,) = torchrun(spec)
    hold = () if spec.per_node_world else ("--hold", spec.master_port)
    offer = ProcessPlan(
        label=launcher.label,
        rank=None,
        argv=(
            *AGENT_PYTHON,
            "{agent}/slurm/slurm_offer.py",
            job.name,
            job.tasks[spec.node_rank].node,
            *(hold if spec.node_rank == 0 else ()),
            "--",
            *launcher.argv,
        ),
        env=launcher.env,
    )
    return (offer,) if spec.node_rank else (offer, _submission(job, spec.options))


def _submission(job: SlurmJob, options: tuple[str, ...]) -> ProcessPlan:
    within = ("--within", job.within) if job.within else ()
    nodes = (word for task in job.tasks for word in ("--node", f"{task.node}={task.interpreter}"))
    argv = (
        *AGENT_PYTHON,
        "{agent}/slurm/slurm_submit.py",
        job.name,
        *("--wait", f"{job.wait_s:g}"),
        *within,
        *nodes,
        "--",
        *_srun(job),
        *options,
    )
    return ProcessPlan(label=NAME, rank=None, argv=argv)


def _srun(job: SlurmJob) -> Iterator[str]:
    """srun's options. The run itself ends the other tasks when one fails, and tells why."""
    count = len(job.tasks)
    yield from (f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1")
    yield f"--nodelist={','.join(task.node for task in job.tasks)}"
    yield from ("--input=none", "--chdir=/", "--mpi=none", "--kill-on-bad-exit=0", "--wait=0")
    if job.within:
        yield "--overlap"  # a step of the user's own may have it all
        return
    if job.run_s is not None:
        yield f"--time={math.ceil(job.run_s / 60) + 1}"
    cpus = min(task.cpus for task in job.tasks)
    if cpus:
        yield f"--cpus-per-task={cpus}"
    gpus = {task.gpus for task in job.tasks}
    if len(gpus) == 1 and gpus != {0}:
        yield f"--gpus-per-node={gpus.pop()}"
    if job.exclusive or len(gpus) > 1:  # Slurm cannot be asked for unequal numbers of GPUs
        yield "--exclusive"


def refused_option(option: str) -> str | None:
    """Why srun must not be given ``option``, or None."""
    if not option.startswith("--") or len(option) < 4:
        return "give it in the long form, such as --partition=gpu"
    if option[2:].partition("=")[0] in DECIDED:
        return "the plan decides that; see --nodes and --ranks-per-node"
    return None


SLURM = Launcher(
    name=NAME,
    processes=slurm,
    ranks_meet=True,
    needs_world=True,
    scheduler=Scheduler(
        question=NAME,
        job=slurm_job,
        conflict=taken,
        holds_nodes=lambda options: bool(within(options)),
    ),
)
