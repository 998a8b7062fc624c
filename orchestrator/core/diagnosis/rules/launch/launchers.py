"""What launchers leave to ranks, and ranks that their launcher ended; scripts and shells."""

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
_TASKS = r"tasks? (?:(?P<rank>\d{1,6})|[\d,-]{1,80}): "
_FAILED = ", because another rank had failed"  # which the line itself proves
_OUTSIDE = " from whatever started it, and the line does not say why"

RULES = (
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
        title="Ended by a signal from outside",
        domain=Domain.LAUNCH,
        cause="{who} received SIGTERM{why}",
        remedy="look at the log of the rank that ended first; where none failed, ask who ended the "
        "job: scheduler, container engine, an out-of-memory daemon",
        role=LogRole.STOPPED,
        advice=Advice.RETRY,
        confidence=Confidence.POSSIBLE,
        weight=40,
        signs=(
            sign("closing signal SIGTERM"),
            # torchrun itself was signalled: that a rank failed would not do that.
            sign("death signal, shutting down workers", r"Received (?!2 )", why=_OUTSIDE),
            sign("ChildFailedError", why=_FAILED),
            sign("SignalException: Process", r"Process (?!\d{1,9} got signal: 2$)", why=_OUTSIDE),
            sign("srun: Job step aborted"),
            sign("srun: Terminating "),
            sign("STEP ", r"\*\*\* STEP \S{1,40} ON \S{1,120} CANCELLED AT \S{1,40} \*\*\*"),
            sign(
                "SIGTERM",
                r"(?:Received|Caught|received|caught) (?:signal )?(?:15|SIGTERM)",
                why=_OUTSIDE,
            ),
            sign("mpirun noticed that process rank", why=_FAILED),
            sign("Killing subprocess"),
            sign("Terminated", r"(?:^|: line \d{1,6}: {1,4}\d{1,9} )Terminated(?:\s|$)"),
            sign("CancelledError", r"^(?:asyncio\.)?(?:exceptions\.)?CancelledError\b"),
        ),
        defaults={
            "why": ": its launcher ends every rank once one fails, or when it is told to end"
        },
        consequence="received SIGTERM",
        references=("torchrun", "srun"),
    ),
    Rule(
        id="LAUNCH-EXIT-001",
        title="A rank exited with an error code",
        domain=Domain.PROGRAM,
        cause="{who} exited with code {code}, and no known failure pattern says why",
        remedy="read the last lines of that rank's own log (torchrun: --log-dir and --tee 3; srun: "
        "--output with %t)",
        role=LogRole.VICTIM,
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
            sign("exit status", r"^Error: exit status (?P<code>\d{1,3})$"),
            sign("failed with exit code", r"(?:run|exec) failed with exit code (?P<code>\d{1,3})"),
            sign("failed to run torchrun"),
            sign("Back-off restarting failed container"),
            sign("with return code", r"Process \d{1,6} failed with return code (?P<code>\d{1,3})"),
        ),
        defaults={"code": "not 0"},
        consequence="exited with an error code",
        references=("srun", "torchrun", "pdsh"),
    ),
    Rule(
        id="SH-CRLF-001",
        title="A script has Windows line ends",
        domain=Domain.LAUNCH,
        cause="a script on {where} ends its lines with CR LF, which the shell takes for part of a "
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
        cause="the launcher on {where} does not understand its hostfile ({detail})",
        remedy="one host a line: NAME slots=N (DeepSpeed, Open MPI), NAME:N (MPICH)",
        confidence=Confidence.CERTAIN,
        weight=78,
        signs=(
            sign("Hostfile ", r"(?P<detail>Hostfile (?:contains|is not formatted) .{1,80})"),
            sign(
                "hostfile",
                r"(?P<detail>[Uu]nable to (?:open|find|parse) .{0,20}hostfile"
                r"(?!.{0,10}will proceed).{0,80})",
            ),
        ),
        defaults={"detail": "see the line"},
        references=("DeepSpeed", "Open MPI"),
    ),
    Rule(
        id="SH-SYNTAX-001",
        title="The shell does not understand the script",
        domain=Domain.PROGRAM,
        cause="the shell on {where} stopped in the script: {detail}",
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
