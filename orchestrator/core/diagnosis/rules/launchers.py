"""Slurm, MPI and torchrun: launches that start no rank, and ranks that their launcher ended."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import Advice, Confidence, Domain, Role, Rule, sign

_HOST = r"(?P<target>[\w.-]{1,120})"
_TASKS = r"tasks? (?:(?P<rank>\d{1,6})|[\d,-]{1,80}): "

RULES = (
    Rule(
        id="LAUNCH-SLURM-001",
        title="Slurm started no task",
        domain=Domain.LAUNCH,
        cause="Slurm started no task on {who}: {detail}; no rank ran there",
        remedy="sbatch and srun must agree on CPUs, GPUs and memory per task (--cpus-per-task is "
        "not inherited by srun); scontrol show job JOB",
        advice=Advice.RETRY,
        confidence=Confidence.CERTAIN,
        weight=88,
        signs=(
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
        cause="the job step waits on {who}: another step of the same job holds what it needs",
        remedy="srun --overlap or --exact, or less per step; scontrol show step JOB",
        role=Role.CONDITION,
        advice=Advice.RETRY,
        weight=60,
        signs=(
            sign("step creation temporarily disabled"),
            sign("step creation still disabled"),
        ),
        references=("Slurm",),
    ),
    Rule(
        id="LAUNCH-PMI-001",
        title="Slurm and MPI have no common process manager",
        domain=Domain.LAUNCH,
        cause="the MPI library on {who} cannot talk to the srun that started it ({detail})",
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
    Rule(
        id="LAUNCH-MPI-001",
        title="mpirun finds too few slots",
        domain=Domain.LAUNCH,
        cause="mpirun was asked for more processes than its hosts have slots ({detail})",
        remedy="slots=N for each host of the hostfile, or fewer processes; --oversubscribe starts "
        "them all the same",
        confidence=Confidence.CERTAIN,
        weight=84,
        signs=(
            sign(
                "not enough slots available",
                r"(?P<detail>not enough slots available.{0,80})",
            ),
            sign(
                "All nodes which are allocated for this job are already filled",
                r"(?P<detail>All nodes .{1,60} are already filled)",
            ),
        ),
        defaults={"detail": "slots"},
        references=("Open MPI",),
    ),
    Rule(
        id="LAUNCH-MPI-002",
        title="mpirun could not start or keep its daemon on a node",
        domain=Domain.LAUNCH,
        cause="mpirun on {who} could not start its daemon on another node, or lost it ({detail}); "
        "the line does not say which node or why",
        remedy="ssh HOST orted --version from the first node; the same Open MPI at the same path "
        "everywhere (mpirun --prefix), and all TCP ports open between the nodes",
        role=Role.VAGUE,
        advice=Advice.RETRY,
        weight=45,
        signs=(
            sign(
                "unable to reliably start one or more daemons",
                r"(?P<detail>unable to reliably start one or more daemons)",
            ),
            sign(
                "lost communication with a remote daemon",
                r"(?P<detail>lost communication with a remote daemon)",
            ),
            sign(
                "died unexpectedly with status",
                r"A daemon .{0,40}(?P<detail>died unexpectedly with status \d{1,3})",
            ),
            sign("No OOB path to target", r"(?P<detail>No OOB path to target)"),
            sign(
                "does not know how to route a message",
                r"(?P<detail>does not know how to route a message)",
            ),
            sign(
                "An internal error has occurred in",
                r"(?P<detail>internal error) has occ.{0,20}RTE",
            ),
            sign("RTE_ERROR_LOG", r"RTE_ERROR_LOG: (?P<detail>.{1,80})"),
            sign("PMIX ERROR", r"PMIX ERROR: (?P<detail>.{1,80})"),
        ),
        defaults={"detail": "daemon"},
        consequence="could not start or keep a daemon",
        references=("Open MPI",),
    ),
    Rule(
        id="LAUNCH-MPI-003",
        title="Open MPI is not on the path of a remote shell",
        domain=Domain.LAUNCH,
        cause="{who} does not find {program}, the daemon of mpirun: its non-interactive shell does "
        "not have MPI on the path",
        remedy="mpirun --prefix DIR (or its absolute path), or PATH and LD_LIBRARY_PATH set at the "
        "top of ~/.bashrc on every node",
        confidence=Confidence.CERTAIN,
        weight=88,
        signs=(
            sign(
                "not found",
                r"(?P<program>orted|prted|hydra_pmi_proxy|hydra_bstrap_proxy): (?:command )?not f",
            ),
            sign(
                "No such file or directory",
                r"(?P<program>orted|prted|hydra_pmi_proxy|hydra_bstrap_proxy): No such file",
            ),
        ),
        defaults={"program": "orted"},
        references=("Open MPI",),
    ),
    Rule(
        id="LAUNCH-MPI-004",
        title="mpirun refuses to run as root",
        domain=Domain.LAUNCH,
        cause="mpirun on {who} refuses to run as root",
        remedy="another user; in a container --allow-run-as-root",
        confidence=Confidence.CERTAIN,
        weight=86,
        signs=(sign("attempt to run as root"),),
        references=("Open MPI",),
    ),
    Rule(
        id="LAUNCH-MPI-005",
        title="A rank called MPI_Abort, or MPI failed in it",
        domain=Domain.PROGRAM,
        cause="{who} ended the job: {detail}",
        remedy="the lines above it in that rank's log say why",
        role=Role.FAILURE,
        weight=22,
        signs=(
            sign(
                "MPI_ABORT was invoked on rank",
                r"(?P<detail>MPI_ABORT was invoked) on rank (?P<rank>\d{1,6})",
            ),
            sign(
                "application called MPI_Abort", r"(?P<detail>application called MPI_Abort.{0,60})"
            ),
            sign("An error occurred in MPI_", r"(?P<detail>An error occurred in MPI_\w{1,40})"),
            sign("Fatal error in ", r"(?P<detail>Fatal error in P?MPI_\w{1,40}.{0,80})"),
        ),
        defaults={"detail": "MPI_Abort"},
        references=("MPI",),
    ),
    Rule(
        id="LAUNCH-ENV-001",
        title="Started without a launcher",
        domain=Domain.LAUNCH,
        cause="{who} lacks {name}, which a launcher sets: the program was started without one",
        remedy="torchrun --nproc-per-node N SCRIPT, or orchestrate run -- SCRIPT, which sets RANK, "
        "LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT",
        confidence=Confidence.CERTAIN,
        weight=76,
        signs=(
            sign(
                "expected, but not set",
                r"environment variable (?P<name>[A-Z_]{4,20}) expected, but not set",
            ),
            sign(
                "KeyError: '",
                r"KeyError: '(?P<name>RANK|LOCAL_RANK|WORLD_SIZE|MASTER_ADDR|MASTER_PORT"
                r"|LOCAL_WORLD_SIZE)'",
            ),
        ),
        defaults={"name": "RANK"},
        references=("torch.distributed",),
    ),
    Rule(
        id="LAUNCH-END-001",
        title="Ended because another rank failed",
        domain=Domain.LAUNCH,
        cause="{who} received SIGTERM, because another rank had failed",
        remedy="look at the log of the rank that ended first",
        role=Role.STOPPED,
        advice=Advice.RETRY,
        confidence=Confidence.POSSIBLE,
        weight=40,
        signs=(
            sign("closing signal SIGTERM"),
            sign("death signal, shutting down workers"),
            sign("ChildFailedError"),
            sign("SignalException: Process"),
            sign("srun: Job step aborted"),
            sign("srun: Terminating "),
            sign("STEP ", r"\*\*\* STEP \S{1,40} ON \S{1,120} CANCELLED AT \S{1,40} \*\*\*"),
            sign("SIGTERM", r"(?:Received|Caught|received|caught) (?:signal )?(?:15|SIGTERM)"),
            sign("mpirun noticed that process rank"),
            sign("Killing subprocess"),
            sign("Terminated", r"(?:^|: line \d{1,6}: {1,4}\d{1,9} )Terminated(?:\s|$)"),
            sign("CancelledError", r"^(?:asyncio\.)?(?:exceptions\.)?CancelledError\b"),
        ),
        consequence="received SIGTERM",
        references=("torchrun", "Slurm"),
    ),
    Rule(
        id="LAUNCH-EXIT-001",
        title="A rank exited with an error code",
        domain=Domain.PROGRAM,
        cause="{who} exited with code {code}, and no known failure pattern says why",
        remedy="read the last lines of that rank's own log (torchrun: --log-dir and --tee 3; srun: "
        "--output with %t)",
        role=Role.VICTIM,
        advice=Advice.RETRY,
        confidence=Confidence.POSSIBLE,
        weight=10,
        signs=(
            sign(
                "Exited with exit code",
                rf"error: {_HOST}: {_TASKS}Exited with exit code (?P<code>\d{{1,3}})",
            ),
            sign(
                "exited with exit code",
                rf"(?:pdsh@[\w.-]{{1,80}}|clush): {_HOST}: (?:ssh )?exited with exit code "
                r"(?P<code>\d{1,3})",
            ),
            sign(
                "failed (exitcode: ",
                r"failed \(exitcode: (?P<code>-?\d{1,3})\) local_rank: (?P<local_rank>\d{1,4})",
            ),
            sign("exits with return code", r"exits with return code = (?P<code>-?\d{1,3})"),
            sign(
                "terminated with exit code",
                r"process (?P<local_rank>\d{1,4}) terminated with exit code (?P<code>-?\d{1,3})",
            ),
            sign("exited with code ", r"[\w.-]{1,80} exited with code (?P<code>[1-9]\d{0,2})"),
            sign("status=", r"Main process exited, code=exited, status=(?P<code>\d{1,3})"),
            sign("Exited with error code", r"Exited with error code (?P<code>\d{1,3})"),
            sign(
                "returned non-zero exit status",
                r"CalledProcessError: .{0,300}returned non-zero exit status (?P<code>\d{1,3})",
            ),
            sign("(pid: ", r"exitcode {1,4}: (?P<code>-?\d{1,3}) \(pid: "),
            sign("Back-off restarting failed container"),
            sign("with return code", r"Process \d{1,6} failed with return code (?P<code>\d{1,3})"),
        ),
        defaults={"code": "not 0"},
        consequence="exited with an error code",
        references=("Slurm", "torchrun", "pdsh"),
    ),
    Rule(
        id="LAUNCH-TIME-001",
        title="The job's time was up",
        domain=Domain.LAUNCH,
        cause="the scheduler ended the job on {who}: its time limit was reached",
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
        cause="the scheduler ended the job on {who}: {reason}",
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
                rf"\*\*\* JOB \d{{1,12}} ON {_HOST} (?P<reason>CANCELLED) AT \S{{1,40}} \*\*\*",
                confidence=Confidence.LIKELY,
            ),
            sign("preempted", r"(?P<reason>[Ii]nstance (?:was|is being) preempted)"),
        ),
        defaults={"reason": "cancelled"},
        references=("Slurm",),
    ),
    Rule(
        id="LAUNCH-NODE-001",
        title="A node failed under Slurm",
        domain=Domain.HARDWARE,
        cause="Slurm lost {who}",
        remedy="orchestrate probe that node, and exclude it: --nodes '!NODE'",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(
            sign("DUE TO NODE FAILURE"),
            sign("Node failure on", rf"Node failure on {_HOST}"),
        ),
        references=("Slurm",),
    ),
    Rule(
        id="SH-CRLF-001",
        title="A script has Windows line ends",
        domain=Domain.LAUNCH,
        cause="a script on {who} ends its lines with CR LF, which the shell takes for part of a "
        "name ({detail})",
        remedy="sed -i 's/\\r$//' SCRIPT; git config core.autocrlf input",
        confidence=Confidence.CERTAIN,
        weight=90,
        signs=(
            sign(r"\r': command not found", r"(?P<detail>\$'[^']{0,40}\\r': command not found)"),
            sign("bad interpreter", r"(?P<detail>\S{0,80}\^M: bad interpreter)"),
            sign(r"\r", r"env: ['\u2018](?P<detail>[\w./-]{1,60}\\r)['\u2019]: No such file"),
        ),
        defaults={"detail": "CR"},
        references=("bash",),
    ),
    Rule(
        id="HOST-ARCH-001",
        title="A program for another processor",
        domain=Domain.LAUNCH,
        cause="{who} cannot execute a program: it was built for another processor architecture",
        remedy="uname -m on the node; an image or environment for that architecture",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=84,
        signs=(sign("xec format error"),),
        references=("Linux: ENOEXEC",),
    ),
    Rule(
        id="LAUNCH-HOSTS-001",
        title="The hostfile cannot be read",
        domain=Domain.LAUNCH,
        cause="the launcher on {who} does not understand its hostfile ({detail})",
        remedy="one host a line: NAME slots=N (DeepSpeed, Open MPI), NAME:N (MPICH)",
        confidence=Confidence.CERTAIN,
        weight=78,
        signs=(
            sign("Hostfile ", r"(?P<detail>Hostfile (?:contains|is not formatted) .{1,80})"),
            sign(
                "hostfile",
                r"(?P<detail>[Uu]nable to (?:open|find|parse) .{0,20}hostfile.{0,80})",
            ),
        ),
        defaults={"detail": "see the line"},
        references=("DeepSpeed", "Open MPI"),
    ),
    Rule(
        id="SH-SYNTAX-001",
        title="The shell does not understand the script",
        domain=Domain.PROGRAM,
        cause="the shell on {who} stopped in the script: {detail}",
        remedy="the line that it names; bash instead of sh for scripts with arrays, [[ ]], source "
        "or pipefail",
        confidence=Confidence.CERTAIN,
        weight=74,
        signs=(
            sign("syntax error", r"line \d{1,6}: (?P<detail>syntax error.{0,80})"),
            sign("Syntax error", r"sh: \d{1,6}: (?P<detail>Syntax error.{0,80})"),
            sign("unbound variable", r"line \d{1,6}: (?P<detail>\S{1,60}: unbound variable)"),
            sign("ad substitution", r"(?:line )?\d{1,6}: (?P<detail>.{0,60}[Bb]ad substitution)"),
            sign("llegal option", r"\d{1,6}: set: (?P<detail>Illegal option .{1,40})"),
        ),
        defaults={"detail": "see the line"},
        references=("bash", "dash"),
    ),
)
