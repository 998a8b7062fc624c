"""``slurm``: Slurm gives the nodes and starts one task on each, which becomes that node's torchrun.

On every node the supervisor starts an *offer* that stands for the launcher: it hands torchrun's
command and environment to the task when that comes, and ends as torchrun ends. On the first node it
starts the *submission*, too, which asks for the job. No path has to be the same on two nodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from orchestrator.core.base.errors import ExitCode
from orchestrator.core.launchers.launcher import Launcher, LaunchSpec
from orchestrator.core.launchers.launcher_error import LauncherError
from orchestrator.core.launchers.launcher_option import LauncherOption, Misuse
from orchestrator.core.launchers.scheduler import ForeignLogs, Scheduler
from orchestrator.core.launchers.slurm_job import NAME, SlurmJob, find_conflict, make_job, own_job
from orchestrator.core.launchers.torchrun import plan_torchrun
from orchestrator.core.model.plan import ProcessPlan

AGENT_PYTHON = ("{agent_python}", "-I", "-S")
# What the plan decides: another word from the user would make two truths of it.
DECIDED = frozenset(
    "chdir error export export-file input job-name label multi-prog nodefile nodelist nodes ntasks "
    "ntasks-per-node output relative".split()
)


def plan_slurm(spec: LaunchSpec) -> tuple[ProcessPlan, ...]:
    """The offer, and on the first node the submission."""
    job = spec.job
    assert isinstance(job, SlurmJob), "planning makes the job"
    (launcher,) = plan_torchrun(spec)
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


def find_misuse(option: str) -> Misuse | None:
    """Why srun must not be given ``option``, or None."""
    what = f"--slurm-option {option[:80]!r} cannot be passed on"
    if not option.startswith("--") or len(option) < 4:
        return Misuse(what=what, why="give it in the long form, such as --partition=gpu")
    if option[2:].partition("=")[0] in DECIDED:
        return Misuse(what=what, why="the plan decides that; see --nodes and --ranks-per-node")
    return None


def pass_options(given: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """What srun is given besides the plan; within a job of the user's own, that is used."""
    own = environment.get("SLURM_JOB_ID", "")
    return tuple(given) if own_job(given) or not own.isdigit() else (*given, f"--jobid={own}")


# Ids that slurm_submit.py and slurm_offer.py write; OR-AGENT-SLURM comes from slurm_tools.py.
ENDED = "OR-SLURM-005"
ERRORS = {
    "OR-AGENT-SLURM": LauncherError(remedy="choose other nodes, or --launcher torchrun"),
    "OR-SLURM-001": LauncherError(
        remedy="install Slurm's client commands there, or choose --launcher torchrun"
    ),
    "OR-SLURM-002": LauncherError(
        remedy="correct --slurm-option; sinfo on the node shows partitions"
    ),
    "OR-SLURM-003": LauncherError(
        remedy="--wait SECONDS lets the job wait longer; squeue on the node shows for what",
        code=ExitCode.BUSY,
    ),
    "OR-SLURM-004": LauncherError(
        remedy="look at slurmd's log on those nodes, or leave them out with --nodes"
    ),
    ENDED: LauncherError(remedy="ask for more time with --timeout, then orchestrate resume RUN"),
}

SLURM = Launcher(
    name=NAME,
    processes=plan_slurm,
    ranks_meet=True,
    needs_world=True,
    options=(
        LauncherOption(
            flag="--slurm-option",
            name="slurm_options",
            metavar="--OPTION=VALUE",
            help="For srun, with --launcher slurm: --partition=gpu, --account=x. Repeatable.",
            find_misuse=find_misuse,
            pass_on=pass_options,
            repeatable=True,
        ),
    ),
    errors=ERRORS,
    scheduler=Scheduler(
        label=NAME,
        question=NAME,
        plan_job=make_job,
        conflict=find_conflict,
        holds_nodes=lambda options: bool(own_job(options)),
        ended=ENDED,
        logs=ForeignLogs(
            commands=("srun", "slurmstepd", "sbatch"),
            prefix="slurmstepd-{node}: ",
            file=r"slurm-\d{1,12}[-_.](?P<rank>\d{1,7})\.",
        ),
    ),
)
