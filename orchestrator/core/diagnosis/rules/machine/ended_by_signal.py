"""Processes that a signal ended, in the words of every launcher, shell and supervisor."""

from __future__ import annotations

from orchestrator.core.base.outcome import Exited, Signalled
from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Confidence,
    Domain,
    LogRole,
    Rule,
    Sign,
    sign,
)

# What torchrun writes above an exit code.
_SUMMARY = (
    r"host {1,6}: (?P<target>[\w.-]{1,120})\n[^\n]{0,80}?rank {1,6}: (?P<rank>\d{1,6}) "
    r"\(local_rank: \d{1,4}\)"
)
_RANK = r"(?: rank=(?P<rank>\d{1,6}))?"


def signalled(number: int, name: str, words: str) -> tuple[Sign, ...]:
    """``9, "KILL", "Killed"``: torchrun, mpirun, srun, DeepSpeed, multiprocessing, subprocess,
    systemd, Docker, Kubernetes, servers. Shells add 128, and some launchers count down from 256.
    """
    codes = f"{128 + number}"
    return (
        sign(
            f"failed (exitcode: -{number})",
            rf"\(exitcode: -{number}\) local_rank: (?P<local_rank>\d{{1,4}})",
        ),
        sign(f": -{number} (pid", rf"exitcode {{1,4}}: -{number} \(pid", around=_SUMMARY),
        sign(f": -{number} (pid", rf"exitcode {{1,4}}: -{number} \(pid"),
        sign(f"ignal {number} (SIG{name})"),
        sign(f"*** SIG{name}", rf"\*\*\* SIG{name} .{{0,80}}(?:received|TID)"),
        sign(
            f"exited on signal {number}",
            r"rank (?P<rank>\d{1,6}) with PID \d{1,9} on node (?P<target>\S{1,80}) exited on "
            rf"signal {number}\b",
        ),
        sign(f"exited on signal {number}", rf"signal {number}\b"),
        sign(
            f": {words}",
            r"error: (?P<target>[\w.-]{1,80}): tasks? (?:(?P<rank>\d{1,6})|[\d,-]{1,80}): " + words,
        ),
        sign(
            f"killed by signal: {words}",
            rf"DataLoader worker .{{0,40}}signal: {words}\.? {{0,4}}$",
            what="a data-loading worker of ",
        ),
        sign(f"return code = -{number}", rf"return code = -{number}\b"),
        sign(f"terminated with signal SIG{name}"),
        # Some launchers list what might have ended a worker; that is no evidence.
        sign(f"SIG{name}", rf"(?:died with <Signals\.|exited by |(?<!is )killed by )SIG{name}"),
        sign(f"xit code: -{number}", rf"xit code: -{number}\b"),
        sign(f"exit code -{number}", rf"exit code -{number}\b"),
        sign(f"exitcode -{number}", rf"exitcode -{number}\b"),
        sign(f"exitcode=-{number}", rf"exitcode=-{number}\b"),
        sign(f"exit status -{number}", rf"exit status -{number}\b"),
        sign(f"exit status {256 - number}", rf"exit status {256 - number}\b"),
        sign(f"status={number}/{name}"),
        sign(f"code {codes}", rf"[Ee]xit(?:ed with)? code {codes}\b"),
        sign(f"code: {codes}", rf"[Ee]xit [Cc]ode: {{1,12}}{codes}\b"),
        sign(f"status {codes}", rf"[Ee]xit status {codes}\b"),
        sign(f"signaled to shutdown with signal {number}", rf"signal {number}\b{_RANK}"),
    )


RULES = (
    Rule(
        id="HOST-KILL-001",
        title="Killed from outside",
        domain=Domain.HOST,
        cause="{what}{who} was killed by SIGKILL: most often by the kernel for lack of host "
        "memory, else by another user or a supervisor",
        remedy="dmesg -T on that node: 'Out of memory: Killed process' settles it",
        role=LogRole.FAILURE,
        advice=Advice.RETRY,
        confidence=Confidence.POSSIBLE,
        weight=60,
        signs=(
            *signalled(9, "KILL", "Killed"),
            sign("Killed", r"(?:^|: line \d{1,6}: {1,4}\d{1,9} )Killed(?:\s|$)"),
        ),
        endings=(Signalled(9), Exited(137)),
        defaults={"what": ""},
        references=("torchrun",),
    ),
    Rule(
        id="HOST-SEGV-001",
        title="Segmentation fault",
        domain=Domain.PROGRAM,
        cause="{who} crashed with a segmentation fault: mixed library versions (CUDA, NCCL, a "
        "compiled extension) or a bug in native code",
        remedy="--env PYTHONFAULTHANDLER=1 shows where; rebuild extensions against the installed "
        "torch",
        role=LogRole.FAILURE,
        advice=Advice.RETRY,
        weight=65,
        signs=(
            *signalled(11, "SEGV", "Segmentation fault"),
            sign("Segmentation fault"),
            sign("segfault at"),
        ),
        endings=(Signalled(11), Exited(139)),
        references=("torchrun",),
    ),
    Rule(
        id="HOST-BUS-001",
        title="Bus error: shared memory or a mapped file was cut off",
        domain=Domain.HOST,
        cause="{who} died of SIGBUS: /dev/shm is full, or a mapped file became shorter",
        remedy="docker --ipc=host or --shm-size=8g; df /dev/shm on the node",
        role=LogRole.FAILURE,
        advice=Advice.RETRY,
        weight=68,
        signs=(*signalled(7, "BUS", "Bus error"), sign("Bus error")),
        endings=(Signalled(7), Exited(135)),
        references=("NCCL#290",),
    ),
    Rule(
        id="HOST-ILL-001",
        title="Illegal instruction",
        domain=Domain.HOST,
        cause="{who} ended at an illegal instruction (SIGILL): a binary built for another CPU",
        remedy="install the wheel for this CPU, or build it there",
        role=LogRole.FAILURE,
        advice=Advice.EXCLUDE_NODE,
        weight=66,
        signs=(*signalled(4, "ILL", "Illegal instruction"), sign("Illegal instruction")),
        endings=(Signalled(4), Exited(132)),
        references=("Linux",),
    ),
    Rule(
        id="HOST-FPE-001",
        title="Arithmetic error in native code",
        domain=Domain.PROGRAM,
        cause="{who} ended at an arithmetic error in native code (SIGFPE), as a rule a division of "
        "integers by zero",
        remedy="--env PYTHONFAULTHANDLER=1 shows where; look at empty batches and sizes of 0",
        role=LogRole.FAILURE,
        weight=60,
        signs=(
            *signalled(8, "FPE", "Floating point exception"),
            sign("Floating point exception"),
        ),
        endings=(Signalled(8), Exited(136)),
        references=("Linux",),
    ),
    Rule(
        id="HOST-ABRT-001",
        title="The program aborted itself",
        domain=Domain.PROGRAM,
        cause="{who} aborted itself (SIGABRT): native code gave up, or a watchdog ended it",
        remedy="the last lines of that rank's log say why; --env PYTHONFAULTHANDLER=1 adds the "
        "Python frames",
        # Watchdogs abort ranks that only waited: what came before says more.
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        confidence=Confidence.POSSIBLE,
        weight=14,
        signs=(
            *signalled(6, "ABRT", "Aborted"),
            sign("Aborted", r"^Aborted(?: \(core dumped\))?$"),
        ),
        consequence="aborted themselves",
        references=("Linux",),
    ),
)
