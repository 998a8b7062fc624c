"""Slurm: jobs and steps that were refused, lost or ended."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Confidence,
    Domain,
    LogRole,
    Rule,
    sign,
)

_HOST = r"(?P<target>[\w.-]{1,120})"
_CANCELLED = rf"ON {_HOST} CANCELLED AT \S{{1,40}}(?P<by> by (?:uid|user) \w{{1,40}}) \*\*\*"

RULES = (
    Rule(
        id="LAUNCH-SLURM-001",
        title="Slurm started no task",
        domain=Domain.LAUNCH,
        cause="Slurm started no task on {where}: {detail}; no rank ran there",
        remedy="sbatch and srun must agree on CPUs, GPUs and memory per task (--cpus-per-task is "
        "not inherited by srun); scontrol show job JOB",
        advice=Advice.RETRY,
        confidence=Confidence.CERTAIN,
        weight=88,
        signs=(
            sign(
                "Zero Bytes were transmitted or received",
                r"(?:failed on node (?P<target>[\w.-]{1,120})|launch failed): "
                r"(?P<detail>Zero Bytes were transmitted or received)",
                confidence=Confidence.POSSIBLE,
            ),
            sign(
                "Task launch for",
                rf"Task launch for \S{{1,40}} failed on node {_HOST}: (?P<detail>.{{1,160}})",
            ),
            sign("Application launch failed", r"Application launch failed: (?P<detail>.{1,160})"),
            sign(
                "Unable to init task launch",
                r"(?P<detail>Unable to init task launch.{0,120})",
            ),
            sign("launch failed: ", r"task \d{1,6} launch failed: (?P<detail>.{1,120})"),
            sign("waiting for task launch", r"(?P<detail>timeout waiting for task launch.{0,60})"),
            sign(
                "CPU binding outside of job step allocation",
                r"(?P<detail>CPU binding outside of job step allocation)",
            ),
            sign("find address for host", r"(?P<detail>can't find address for host \S{1,80})"),
        ),
        defaults={"detail": "no reason given"},
        references=("Slurm",),
    ),
    Rule(
        id="LAUNCH-SLURM-002",
        title="Slurm refused the job or its step",
        domain=Domain.LAUNCH,
        cause="Slurm refused what was asked for: {detail}; no rank ran",
        remedy="sinfo and scontrol show partition name what exists; the request (nodes, tasks, "
        "gres, memory, account, time) must fit into it",
        confidence=Confidence.CERTAIN,
        weight=86,
        signs=(
            sign(
                "Unable to create step for job",
                r"Unable to create step for job \d{1,12}: (?P<detail>.{1,160})",
            ),
            sign(
                "Unable to allocate resources",
                r"Unable to allocate resources: (?P<detail>.{1,160})",
            ),
            sign(
                "ob submission failed",
                r"[Jj]ob submission failed: (?P<detail>.{1,160})",
            ),
            sign(
                "Unable to confirm allocation",
                r"Unable to confirm allocation for job \d{1,12}: (?P<detail>.{1,160})",
            ),
            sign("unable to accept job", r"(?P<detail>Slurm temporarily unable to accept job)"),
            sign("mutually exclusive", r"srun: fatal: (?P<detail>SLURM_MEM.{1,120})"),
            sign("invalid partition", r"(?P<detail>invalid partition specified: \S{1,80})"),
            sign(
                "nable to contact slurm controller",
                r"(?P<detail>Unable to contact slurm contr\w{4})",
            ),
        ),
        defaults={"detail": "no reason given"},
        references=("Slurm",),
    ),
    Rule(
        id="LAUNCH-SLURM-003",
        title="A job step waits for resources",
        domain=Domain.LAUNCH,
        cause="the job step waits on {where}: another step of the same job holds what it needs",
        remedy="srun --overlap or --exact, or less per step; scontrol show step JOB",
        role=LogRole.CONDITION,
        advice=Advice.RETRY,
        weight=60,
        signs=(
            sign("step creation temporarily disabled"),
            sign("step creation still disabled"),
        ),
        references=("Slurm",),
    ),
    Rule(
        id="LAUNCH-MUNGE-001",
        title="Slurm's nodes do not trust each other",
        domain=Domain.HOST,
        cause="Munge on {where} refused a message of Slurm ({detail}): {reason}",
        remedy="chronyc tracking on every node; the same /etc/munge/munge.key everywhere: munge "
        "-n | "
        "ssh NODE unmunge",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=90,
        signs=(
            sign(
                "Munge decode failed",
                r"Munge decode failed: (?P<detail>(?:Expired|Rewound) credential)",
                reason="the clocks of the nodes differ",
            ),
            sign("Munge decode failed", r"Munge decode failed: (?P<detail>.{1,60})"),
            sign("Munge encode failed", r"(?P<detail>Munge encode failed.{0,80})"),
        ),
        defaults={"detail": "no reason given", "reason": "another key, or munged does not run"},
        explains=("LAUNCH-SLURM-001", "LAUNCH-SLURM-002"),
        references=("Slurm", "Munge"),
    ),
    Rule(
        id="LAUNCH-TIME-001",
        title="The job's time was up",
        domain=Domain.LAUNCH,
        cause="the scheduler ended the job on {where}: its time limit was reached",
        remedy="sbatch --time, or checkpoints and orchestrate resume",
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(
            sign("DUE TO TIME LIMIT", rf" ON {_HOST} CANCELLED AT .{{1,40}} DUE TO TIME LIMIT"),
            sign("DUE TO TIME LIMIT"),
            sign("TERM_RUNLIMIT"),
            sign("PBS: job killed: walltime"),
        ),
        references=("Slurm",),
    ),
    Rule(
        id="LAUNCH-PREEMPT-001",
        title="The job was preempted or cancelled",
        domain=Domain.LAUNCH,
        cause="the scheduler ended the job on {where}: {reason}",
        remedy="checkpoints and orchestrate resume; a partition or priority without preemption",
        advice=Advice.RETRY,
        confidence=Confidence.CERTAIN,
        weight=79,
        signs=(
            sign("DUE TO PREEMPTION", rf" ON {_HOST} CANCELLED AT .{{1,40}}(?P<reason>PREEMPTION)"),
            sign(
                "DUE TO JOB REQUEUE", rf" ON {_HOST} CANCELLED AT .{{1,40}}(?P<reason>JOB REQUEUE)"
            ),
            sign(
                "CANCELLED AT",
                rf"\*\*\* JOB \d{{1,12}} ON {_HOST} (?P<reason>CANCELLED) AT \S{{1,40}} "
                r"DUE (?i:to) (?!TIME LIMIT|NODE FAILURE|JOB NOT)[\w ]{1,40} \*\*\*",
                confidence=Confidence.LIKELY,
            ),
            sign("preempted", r"(?P<reason>[Ii]nstance (?:was|is being) preempted)"),
            sign("node was preempted", r"the actor's (?P<reason>node was preempted.{0,80})"),
            # Clouds take instances back: Amazon's, Google's and Azure's words.
            sign("nterruption notice", r"(?P<reason>(?:[Ss]pot )?.{0,24}nterruption notice)"),
            sign("reempt", r"(?P<reason>[Pp]reempt(?:ion)? (?:notice|event)|is being preempted)"),
            sign("nstance", r"(?P<reason>(?:spot|Spot) \w{0,10} ?termination notice)"),
        ),
        defaults={"reason": "cancelled"},
        references=("Slurm",),
    ),
    Rule(
        id="LAUNCH-CANCEL-001",
        title="The job was cancelled",
        domain=Domain.LAUNCH,
        cause="the job on {where} was cancelled{by} (scancel), by its user or an administrator; "
        "no failure stands before that",
        remedy="nothing, if it was meant; sacct -j JOB -o State%30 names the user who did it",
        # A rank that failed before it counts more: people cancel what hangs.
        role=LogRole.FAILURE,
        advice=Advice.GIVE_UP,
        confidence=Confidence.CERTAIN,
        weight=79,
        signs=(
            sign("CANCELLED AT", rf"\*\*\* (?:JOB|STEP) [\d.+_\w]{{1,40}} {_CANCELLED}"),
            # A step without a user may have been ended by srun, for one of its tasks.
            sign(
                "CANCELLED AT",
                rf"\*\*\* JOB \d{{1,12}} ON {_HOST} CANCELLED AT \S{{1,40}} \*\*\*",
                confidence=Confidence.LIKELY,
            ),
        ),
        defaults={"by": ""},
        references=("Slurm: scancel",),
    ),
    Rule(
        id="LAUNCH-NODE-001",
        title="A node failed under its scheduler",
        domain=Domain.HARDWARE,
        cause="{scheduler} lost {who}",
        remedy="orchestrate probe that node, and exclude it: --nodes '!NODE'",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(
            sign("DUE TO NODE FAILURE"),
            sign("Node failure on", rf"Node failure on {_HOST}"),
            sign("state to ", rf"Setting node {_HOST} state to (?:INVAL|DOWN|FAIL)"),
            sign(" not responding, setting DOWN", rf"Nodes? {_HOST} not responding"),
            sign("send to MOM", r"send to MOM '(?P<target>[\w.:-]{1,80})' failed", scheduler="PBS"),
            sign("MOM rejected/timeout", scheduler="PBS"),
            sign("NodeNotReady", r"\bNodeNotReady\b.{0,80}ot ready", scheduler="Kubernetes"),
            sign("is unreachable", r"Node is unreachable", scheduler="Kubernetes"),
        ),
        defaults={"scheduler": "Slurm"},
        references=("Slurm",),
    ),
    Rule(
        id="LAUNCH-PMI-001",
        title="Slurm and MPI have no common process manager",
        domain=Domain.LAUNCH,
        cause="the MPI library on {where} cannot talk to the srun that started it ({detail})",
        remedy="srun --mpi=list shows what Slurm offers; srun --mpi=pmix with an Open MPI built "
        "with PMIx, or mpirun inside the allocation",
        confidence=Confidence.CERTAIN,
        weight=86,
        signs=(
            sign("OMPI was not built with SLURM", r"(?P<detail>OMPI was not built with SLURM)"),
            sign("PMI support", r"(?P<detail>not built with SLURM's\s?PMI support)"),
            sign("nvalid MPI plugin name", r"(?P<detail>[Ii]nvalid MPI plugin name.{0,60})"),
            sign(
                "specified plugin name for mpi/",
                r"(?P<detail>specified plugin name for mpi/\w{1,20})",
            ),
        ),
        defaults={"detail": "PMI"},
        references=("Slurm", "Open MPI"),
    ),
)
