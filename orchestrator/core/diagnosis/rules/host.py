"""The machine and its operating system."""

from __future__ import annotations

from orchestrator.core.base.outcome import Exited, Signalled
from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Confidence,
    Domain,
    LogRole,
    Rule,
    sign,
)

_EXITCODE = r"failed \(exitcode: %s\) local_rank: (?P<local_rank>\d{1,4})"

RULES = (
    Rule(
        id="HOST-OOM-001",
        title="The host ran out of memory",
        domain=Domain.HOST,
        cause="the kernel of {who} killed {program} because host memory ran out",
        remedy="fewer data-loader workers, less pinned or cached data, or a node (or memory limit) "
        "with more memory",
        confidence=Confidence.CERTAIN,
        weight=88,
        signs=(
            sign(
                "Killed process",
                r"ut of memory: Killed process (?P<pid>\d{1,9}) \((?P<program>[^)]{1,40})\)",
            ),
            sign("oom-kill:", r"oom-kill:.{0,300}?task=(?P<program>[^,]{1,40})"),
            sign("oom_kill event", r"[Dd]etected \d{1,6} oom_kill event"),
            sign("OUT_OF_MEMORY", r"\bOUT_OF_MEMORY\b"),
            sign("Some of the step tasks have been OOM Killed"),
            sign("OOMKilled"),
            sign("Out Of Memory", r"task \d{1,6}: Out Of Memory"),
        ),
        defaults={"program": "a process"},
        references=("Linux: OOM killer",),
    ),
    Rule(
        id="HOST-KILL-001",
        title="Killed from outside",
        domain=Domain.HOST,
        cause="{who} was killed by SIGKILL and could not say a word: most often the kernel, out of "
        "host memory, or somebody on that node",
        remedy="dmesg -T on that node: 'Out of memory: Killed process' settles it",
        role=LogRole.FAILURE,
        advice=Advice.RETRY,
        confidence=Confidence.POSSIBLE,
        weight=60,
        signs=(
            sign("failed (exitcode: -9)", _EXITCODE % "-9"),
            sign("ignal 9 (SIGKILL)"),
            sign("Killed", r"(?:^|: line \d{1,6}: {1,4}\d{1,9} )Killed(?:\s|$)"),
            sign("exited on signal 9"),
        ),
        endings=(Signalled(9), Exited(137)),
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
            sign("Fatal Python error: Segmentation fault"),
            sign("Segmentation fault"),
            sign("failed (exitcode: -11)", _EXITCODE % "-11"),
            sign("ignal 11 (SIGSEGV)"),
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
        signs=(
            sign("Bus error"),
            sign("failed (exitcode: -7)", _EXITCODE % "-7"),
            sign("ignal 7 (SIGBUS)"),
        ),
        endings=(Signalled(7), Exited(135)),
        references=("NCCL#290",),
    ),
    Rule(
        id="HOST-ILL-001",
        title="Illegal instruction",
        domain=Domain.HOST,
        cause="{who} met an instruction that its CPU does not know: a binary built for another CPU",
        remedy="install the wheel for this CPU, or build it there",
        role=LogRole.FAILURE,
        advice=Advice.EXCLUDE_NODE,
        weight=66,
        signs=(
            sign("Illegal instruction"),
            sign("failed (exitcode: -4)", _EXITCODE % "-4"),
            sign("ignal 4 (SIGILL)"),
        ),
        endings=(Signalled(4), Exited(132)),
        references=("Linux",),
    ),
    Rule(
        id="HOST-DISK-001",
        title="The disk is full",
        domain=Domain.HOST,
        cause="{who} could not write {path}: no space is left",
        remedy="df -h and df -i on the node; orchestrate clean removes old runs; fewer checkpoints",
        confidence=Confidence.CERTAIN,
        weight=75,
        signs=(
            sign(
                "No space left on device",
                r"No space left on device(?:: '(?P<path>/[^']{1,200}))?",
            ),
            sign("file write failed", r"PytorchStreamWriter failed writing file|file write failed"),
            sign("isk quota exceeded"),
        ),
        defaults={"path": "a file"},
        references=("Linux: ENOSPC, EDQUOT",),
    ),
    Rule(
        id="HOST-PERM-001",
        title="Permission denied",
        domain=Domain.LAUNCH,
        cause="{who} may not open or run {path}",
        remedy="owner and mode of that path on that node, and chmod +x for a script",
        weight=65,
        signs=(
            sign(
                "Permission denied",
                r"PermissionError: \[Errno 13\] Permission denied: '?(?P<path>[^']{1,200})",
            ),
            sign(
                "Permission denied",
                r"(?:^|\s)(?:/bin/)?(?:ba|da|z)?sh: (?:line )?(?:\d{1,6}: )?"
                r"(?P<path>[^ :]{1,200}): Permission denied",
            ),
            sign("ermission denied", r"execve\(\): (?P<path>[^ :]{1,200}): Permission denied"),
        ),
        defaults={"path": "a file"},
        references=("Linux: EACCES",),
    ),
    Rule(
        id="HOST-FILE-001",
        title="A file is missing",
        domain=Domain.LAUNCH,
        cause="{who} did not find {path}",
        remedy="relative paths start in the synced folder; data must lie at the same path on every "
        "node",
        weight=60,
        signs=(
            sign(
                "No such file or directory",
                r"FileNotFoundError: \[Errno 2\] No such file or directory: '?"
                r"(?P<path>[^']{1,200})",
            ),
            sign("NotADirectoryError", r"NotADirectoryError: .{0,80}'(?P<path>[^']{1,200})"),
        ),
        defaults={"path": "a file"},
        references=("Linux: ENOENT",),
    ),
    Rule(
        id="HOST-LIMIT-001",
        title="Too many open files or threads",
        domain=Domain.HOST,
        cause="{who} reached a limit of its user on that node ({detail})",
        remedy="ulimit -n and -u in the shell that starts ranks; fewer data-loader workers, and "
        "OMP_NUM_THREADS",
        confidence=Confidence.CERTAIN,
        weight=75,
        signs=(
            sign("Too many open files", r"(?P<detail>Too many open files)"),
            sign("pthread_create failed", r"(?P<detail>pthread_create failed)"),
            sign("can't start new thread", r"(?P<detail>can't start new thread)"),
            sign("fork: retry: Resource temporarily unavailable", r"(?P<detail>fork)"),
        ),
        defaults={"detail": "limit"},
        references=("Linux: RLIMIT_NOFILE, RLIMIT_NPROC",),
    ),
    Rule(
        id="HOST-IO-001",
        title="The file system failed",
        domain=Domain.HARDWARE,
        cause="the file system of {who} failed ({detail}){path}",
        remedy="dmesg and mount on the node; an NFS or parallel file system needs to be mounted "
        "again",
        advice=Advice.EXCLUDE_NODE,
        weight=75,
        signs=(
            sign("Stale file handle", r"(?P<detail>Stale file handle)(?P<path>: '[^']{1,200}')?"),
            sign(
                "[Errno 5]", r"\[Errno 5\] (?P<detail>Input/output error)(?P<path>: '[^']{1,200}')?"
            ),
            sign(
                "I/O error, dev", r"blk_update_request: (?P<detail>.{0,20}I/O error, dev \w{1,20})"
            ),
            sign("I/O error, dev", r"(?P<detail>I/O error, dev \w{1,20})"),
            sign(
                "Transport endpoint is not connected",
                r"(?P<detail>Transport endpoint is not connected)",
            ),
            sign("Read-only file system", r"(?P<detail>Read-only file system)"),
        ),
        defaults={"detail": "input/output error", "path": ""},
        references=("Linux: ESTALE, EIO, EROFS",),
    ),
    Rule(
        id="HOST-PCIE-001",
        title="A PCIe link is slower than it could be",
        domain=Domain.HARDWARE,
        cause="a PCIe link of {who} runs below its ability: {found} instead of {able}",
        remedy="reseat the card, check the BIOS; compare LnkSta and LnkCap in lspci -vv",
        role=LogRole.SLOW,
        advice=Advice.GO_ON,
        weight=55,
        signs=(
            sign(
                "available PCIe bandwidth",
                r"(?P<found>[\d.]{1,10} Gb/s) available PCIe bandwidth, limited by .{0,100}?"
                r"capable of (?P<able>[\d.]{1,10} Gb/s)",
            ),
            sign("available PCIe bandwidth, limited by"),
        ),
        defaults={"found": "less", "able": "the full width"},
        references=("imbue: host health checks",),
    ),
    Rule(
        id="HOST-CLOCK-001",
        title="GPU clocks are held down",
        domain=Domain.HARDWARE,
        cause="GPUs of {who} run slower than they could: {reason}",
        remedy="cooling and power of the node, nvidia-smi -q -d PERFORMANCE,POWER; figures "
        "measured like this are not valid",
        role=LogRole.SLOW,
        advice=Advice.GO_ON,
        weight=55,
        signs=(
            sign(
                ": Active",
                r"(?P<reason>SW Power Cap|HW Slowdown|HW Thermal Slowdown|SW Thermal Slowdown"
                r"|HW Power Brake Slowdown) {1,40}: Active",
            ),
            sign(
                "SLOWDOWN", r"clocks_(?:throttle|event)_reasons.{0,80}(?P<reason>\w{0,12}SLOWDOWN)"
            ),
        ),
        defaults={"reason": "throttled"},
        references=("DCGM", "Azure NHC"),
    ),
    Rule(
        id="HOST-LIB-001",
        title="The node's C library is too old",
        domain=Domain.LAUNCH,
        cause="a binary on {who} needs {needs}, which the node does not have",
        remedy="a container, or a conda environment, that brings its own",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(sign("GLIBC", r"version `(?P<needs>GLIBC(?:XX)?_[\d.]{1,10})' not found"),),
        defaults={"needs": "a newer library"},
        references=("glibc",),
    ),
    Rule(
        id="HOST-MEMLOCK-001",
        title="Little memory may be locked",
        domain=Domain.HOST,
        cause="ranks on {who} may lock next to no memory, which InfiniBand needs",
        remedy="memlock unlimited in /etc/security/limits.d, and LimitMEMLOCK=infinity for sshd",
        role=LogRole.CONDITION,
        advice=Advice.LOWER_RUNG,
        weight=58,
        references=("nccl-tests#206",),
    ),
    Rule(
        id="HOST-GPU-001",
        title="A GPU was in use before the run began",
        domain=Domain.HOST,
        cause="GPU {gpu} of {who} already held {held} for process {pids} before the run began",
        remedy="nvidia-smi on the node; orchestrate clean ends what its own runs left behind",
        role=LogRole.CONDITION,
        advice=Advice.RETRY,
        weight=58,
        defaults={"gpu": "?", "held": "memory", "pids": "?"},
        references=("NVML",),
    ),
)
