"""The machine and its operating system."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Confidence,
    Domain,
    LogRole,
    Rule,
    sign,
)

_JOB = "the memory that its job may use"

RULES = (
    Rule(
        id="HOST-OOM-001",
        title="The host ran out of memory",
        domain=Domain.HOST,
        cause="{killer} {who} killed {program} because {memory} ran out",
        remedy="fewer data-loader workers, less pinned or cached data, or a node (or memory limit) "
        "with more memory",
        confidence=Confidence.CERTAIN,
        weight=88,
        signs=(
            sign(
                "Memory cgroup out of memory",
                r"ut of memory: Kill(?:ed)? process (?P<pid>\d{1,9}) \((?P<program>[^)]{1,40})\)",
                memory="the memory of its container or job (cgroup)",
            ),
            sign(
                "Killed process",
                r"ut of memory: Killed process (?P<pid>\d{1,9}) \((?P<program>[^)]{1,40})\)",
            ),
            sign(
                "Kill process",
                r"ut of memory: Kill process (?P<pid>\d{1,9}) \((?P<program>[^)]{1,40})\)",
            ),
            sign("oom-kill:", r"oom-kill:.{0,300}?task=(?P<program>[^,]{1,40})"),
            sign("oom_kill event", r"[Dd]etected \d{1,6} oom_kill event", memory=_JOB),
            sign("oom-kill event", r"[Dd]etected \d{1,6} oom-kill event", memory=_JOB),
            sign("OUT_OF_MEMORY", r"\bOUT_OF_MEMORY\b", memory=_JOB),
            sign("Some of the step tasks have been OOM Killed", memory=_JOB),
            sign("OOMKilled", memory="the memory that its container may use"),
            sign(
                "Out Of Memory",
                r"error: (?P<target>[\w.-]{1,80}): tasks? (?:(?P<rank>\d{1,6})|[\d,-]{1,80}): Out "
                r"Of "
                r"Memory",
                memory=_JOB,
            ),
            sign("exceeded memory limit", r"exceeded memory limit \(.{1,60}\), being killed"),
            sign("Exceeded job memory limit"),
            sign("Exceeded step memory limit"),
            sign("TERM_MEMLIMIT"),
            sign("PBS: job killed: mem"),
            sign("killed by the OOM killer"),
            sign("oom-kill", r"Failed with result 'oom-kill'"),
            # Daemons that are quicker than the kernel: earlyoom, nohang, systemd-oomd.
            sign(
                "ending SIG",
                r"[Ss]ending SIG(?:TERM|KILL) to .{0,40}\"(?P<program>[^\"]{1,40})\": badness",
                killer="earlyoom on",
            ),
            sign("low memory! at or below SIG", killer="earlyoom on"),
            sign("due to memory pressure for", killer="systemd-oomd on"),
            sign("due to memory used", killer="systemd-oomd on"),
            sign("node running low on memory", killer="Ray on", program="a worker"),
            sign(
                "killed due to memory pressure (OOM)",
                r"[1-9]\d{0,6} Workers .{0,20}killed due to",
                killer="Ray on",
                program="a worker",
            ),
            sign("RayOutOfMemoryError", killer="Ray on", program="a worker"),
        ),
        defaults={
            "program": "a process",
            "killer": "the kernel of",
            "memory": "host memory",
        },
        references=("Linux: OOM killer",),
    ),
    Rule(
        id="HOST-MEM-001",
        title="An allocation of host memory failed",
        domain=Domain.HOST,
        cause="{who} asked for more host memory than it may have ({detail})",
        remedy="free -h and the job's memory limit (ulimit -v, cgroup, sbatch --mem); fewer "
        "workers, "
        "smaller batches of raw data, low_cpu_mem_usage=True when models are loaded",
        confidence=Confidence.CERTAIN,
        weight=76,
        signs=(
            sign(
                "DefaultCPUAllocator",
                r"DefaultCPUAllocator: (?P<detail>(?:can't allocate memory|not enough memory)"
                r".{0,60})",
            ),
            sign("Unable to allocate", r"(?P<detail>Unable to allocate [\d.]{1,9} [KMGT]iB)"),
            sign("MemoryError", r"^(?P<detail>MemoryError)\b"),
            sign("std::bad_alloc", r"(?P<detail>std::bad_alloc)(?!: out_of_memory: (?:RMM|CUDA))"),
            sign(
                "memory budget",
                r"(?P<detail>Worker (?:tcp\S{1,80} )?(?:\(pid=\d{1,9}\) )?exceeded \d{1,3}% memory "
                r"budget)",
                confidence=Confidence.LIKELY,
            ),
            sign("[Errno 12]", r"(?P<detail>\[Errno 12\] Cannot allocate memory)"),
            sign(
                "cannot allocate memory", r"fork/exec \S{1,200}: (?P<detail>cannot allocate memory)"
            ),
            sign("Cannot allocate memory", r"fork: (?P<detail>Cannot allocate memory)"),
        ),
        defaults={"detail": "no memory"},
        references=("torch", "numpy"),
    ),
    Rule(
        id="HOST-PCIE-001",
        title="A PCIe link is slower than it could be",
        domain=Domain.HARDWARE,
        cause="a PCIe link of {where} runs below its ability: {found} instead of {able}",
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
        cause="GPUs of {where} run slower than they could: {reason}",
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
        cause="a binary on {where} needs {needs}, which the node does not have",
        remedy="a container, or a conda environment, that brings its own",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(
            sign("GLIBC", r"version [`'](?P<needs>(?:GLIBC(?:XX)?|CXXABI)_[\d.]{1,10})' not found"),
            sign(
                "relocation error",
                r"symbol (?P<needs>[\w@.]{1,120}, version [\w.+-]{1,80}) not defined in file",
            ),
            sign("CXXABI_", r"version [`'](?P<needs>CXXABI_[\d.]{1,10})' not found"),
        ),
        defaults={"needs": "a newer library"},
        references=("glibc",),
    ),
    Rule(
        id="HOST-MEMLOCK-001",
        title="The memlock limit is too low for InfiniBand",
        domain=Domain.HOST,
        cause="the limit of locked memory (memlock) on {where} is too low for InfiniBand",
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
        cause="GPU {gpu} of {where} already held {held} for process {pids} before the run began",
        remedy="nvidia-smi on the node; orchestrate clean ends what its own runs left behind",
        role=LogRole.CONDITION,
        advice=Advice.RETRY,
        weight=58,
        defaults={"gpu": "?", "held": "memory", "pids": "?"},
        references=("NVML",),
    ),
    Rule(
        id="HOST-HW-001",
        title="The machine reports a hardware error",
        domain=Domain.HARDWARE,
        cause="the kernel of {where} reports a hardware error ({detail})",
        remedy="ipmitool sel list and rasdaemon on the node; exclude it until memory and processor "
        "are checked",
        advice=Advice.EXCLUDE_NODE,
        weight=86,
        signs=(
            sign("[Hardware Error]", r"(?P<detail>\[Hardware Error\]: (?!Corrected).{1,80})"),
            sign("EDAC ", r"(?P<detail>EDAC \w{1,12}: \d{1,6} UE .{0,60})"),
            sign("Kernel panic", r"(?P<detail>Kernel panic.{0,80})"),
        ),
        defaults={"detail": "machine check"},
        references=("Linux: RAS",),
    ),
    Rule(
        id="HOST-PCIE-002",
        title="A PCIe device reports a fatal error",
        domain=Domain.HARDWARE,
        cause="a PCIe device of {where} reports an uncorrected error ({detail})",
        remedy="lspci -vv of that device; reseat it; exclude the node on repeat",
        advice=Advice.EXCLUDE_NODE,
        weight=84,
        signs=(
            sign("AER: ", r"(?P<detail>AER: Uncorrected .{1,80})"),
            sign("PCIe Bus Error", r"(?P<detail>PCIe Bus Error: severity=Uncorrected.{0,60})"),
        ),
        defaults={"detail": "AER"},
        references=("Linux: PCIe AER",),
    ),
    Rule(
        id="HOST-STALL-001",
        title="The kernel reports a stalled task",
        domain=Domain.HOST,
        cause="a task of {where} made no progress in the kernel ({detail})",
        remedy="the lines below name the task; as a rule storage or a driver that does not answer",
        role=LogRole.CONDITION,
        advice=Advice.RETRY,
        weight=56,
        signs=(
            sign(
                "blocked for more than",
                r"(?P<detail>task \S{1,40} blocked for more than \d{1,6} s)",
            ),
            sign("soft lockup", r"(?P<detail>soft lockup - CPU#\d{1,5} stuck.{0,20})"),
            sign("detected stalls on", r"(?P<detail>detected stalls on CPUs)"),
        ),
        defaults={"detail": "stalled"},
        references=("Linux: hung task detector",),
    ),
)
