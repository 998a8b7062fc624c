"""The node itself: does it answer, and what does it grant to those who work there."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.doctor.check_model import (
    NONE,
    OK,
    Check,
    CheckAnswer,
    CheckedNode,
    Needs,
    fail_answer,
    unknown_answer,
    warn_answer,
)
from orchestrator.core.model.facts import StuckProcess
from orchestrator.core.tuning.risky_settings import find_habits

GB = 1_000_000_000
LEAST_DISK, LITTLE_DISK = 1 * GB, 10 * GB
DOCKERS_SHM, LITTLE_SHM = 64 * 1024**2, 1 * GB
CLOCK_WARN_S, CLOCK_FAIL_S = 0.5, 2.0
FAST_GOVERNOR = "performance"
SLOW_CLOCKS = frozenset({"hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit"})
MANY_ZOMBIES = 100
MAX_NAMED = 3


def _node_answers(look: CheckedNode) -> CheckAnswer:
    del look
    return OK


def _clock_offset(look: CheckedNode) -> CheckAnswer:
    offset = look.facts.clock_offset_s
    text = f"{offset:+.1f} s from the coordinator's"
    if abs(offset) > CLOCK_FAIL_S:
        return fail_answer(text)
    return warn_answer(text) if abs(offset) > CLOCK_WARN_S else OK


def _memlock_limit(look: CheckedNode) -> CheckAnswer:
    limit = look.facts.memlock_bytes
    if limit is None:
        return OK
    return fail_answer(
        f"ranks may lock {limit / 1024**2:.1f} MiB: registering memory with adapters fails"
    )


def _shared_memory(look: CheckedNode) -> CheckAnswer:
    if len(look.facts.gpus) < 2:
        return NONE
    if look.facts.shm_bytes is None:
        return unknown_answer("how much shared memory there is")
    text = f"{look.facts.shm_bytes / 1024**2:.0f} MiB of shared memory"
    if look.facts.shm_bytes <= DOCKERS_SHM:
        return fail_answer(text)
    return warn_answer(text) if look.facts.shm_bytes < LITTLE_SHM else OK


def _disk_space(look: CheckedNode) -> CheckAnswer:
    if look.facts.writable is False:
        return fail_answer("nothing can be written where orchestrate keeps its files")
    free = look.facts.disk_free_bytes
    text = f"{free / GB:.1f} GB are free where orchestrate keeps its files"
    if free < LEAST_DISK:
        return fail_answer(text)
    return warn_answer(text) if free < LITTLE_DISK else OK


def _cpu_governor(look: CheckedNode) -> CheckAnswer:
    governors = look.facts.governors
    if governors is None:
        return unknown_answer("the governors of the CPUs")
    if not governors:
        in_machine = look.facts.virtual_machine
        return NONE if in_machine else unknown_answer("the firmware sets the clocks of the CPUs")
    slow = [name for name in governors if name != FAST_GOVERNOR]
    return warn_answer(f"CPUs run under {', '.join(slow)}") if slow else OK


def _clock_source(look: CheckedNode) -> CheckAnswer:
    source = look.facts.clock_source
    if not source:
        return unknown_answer("its clock source")
    text = f"the kernel reads the time from {source}: the CPUs' own counter was found unstable"
    return warn_answer(text) if source in SLOW_CLOCKS else OK


def stuck_text(processes: Sequence[StuckProcess]) -> str:
    """The first of them, with user, pid and state."""
    named = (
        f"{process.user or '?'}'s {process.name or '?'} (pid {process.pid}, {process.state})"
        for process in processes[:MAX_NAMED]
    )
    rest = f" and {len(processes) - MAX_NAMED} more" if len(processes) > MAX_NAMED else ""
    return f"cannot be ended: {', '.join(named)}{rest}"


def _stuck_now(look: CheckedNode) -> CheckAnswer:
    """A moment in this state is ordinary: only a second look tells (GROW-004)."""
    stuck = look.facts.stuck
    if stuck is None:
        return unknown_answer("processes")
    dead = [process for process in stuck if process.state == "Z"]
    if dead:
        return fail_answer(stuck_text(dead))
    return warn_answer(f"for now {stuck_text(stuck)}") if stuck else OK


def _zombies(look: CheckedNode) -> CheckAnswer:
    count = look.facts.zombies
    if count is None:
        return unknown_answer("processes")
    return warn_answer(f"{count} zombies") if count >= MANY_ZOMBIES else OK


def _risky_variables(look: CheckedNode) -> CheckAnswer:
    found = find_habits({**look.facts.nccl_conf, **look.subject.spec.env})
    if not found:
        return OK
    return warn_answer("; ".join(f"{habit.name}: {habit.why}" for habit in found))


CHECKS = (
    Check(
        id="OR-DOC-NODE-001",
        name="answers",
        remedy="ssh to it by hand; then: orchestrate exec --cluster C -- true",
        judge=_node_answers,
    ),
    Check(
        id="OR-DOC-HOST-001",
        name="clock",
        remedy="start chrony or systemd-timesyncd: times in logs do not line up",
        judge=_clock_offset,
    ),
    Check(
        id="OR-DOC-HOST-002",
        name="memlock",
        remedy="memlock unlimited in limits.conf, for sshd and in containers (--ulimit memlock=-1)",
        judge=_memlock_limit,
        needs=Needs.ADAPTERS,
    ),
    Check(
        id="OR-DOC-HOST-003",
        name="shared memory",
        remedy="start the container with --ipc=host or --shm-size=16g",
        judge=_shared_memory,
        needs=Needs.GPUS,
    ),
    Check(
        id="OR-DOC-HOST-004",
        name="disk",
        remedy="free some space, or mount it writable; or name another workdir in the inventory",
        judge=_disk_space,
    ),
    Check(
        id="OR-DOC-HOST-005",
        name="CPU governor",
        remedy="as root: cpupower frequency-set -g performance; kernels are launched later without",
        judge=_cpu_governor,
        needs=Needs.GPUS,
    ),
    Check(
        id="OR-DOC-HOST-006",
        name="clock source",
        remedy="dmesg | grep -i tsc; boot with tsc=reliable if the CPUs' counters are in step",
        judge=_clock_source,
    ),
    Check(
        id="OR-DOC-HOST-007",
        name="stuck processes",
        remedy="doctor --level 2min shows whether they stay; cat /proc/PID/wchan says in what",
        judge=_stuck_now,
    ),
    Check(
        id="OR-DOC-HOST-008",
        name="zombies",
        remedy="ps -eo ppid,stat | grep Z shows the parent that does not collect them: restart it",
        judge=_zombies,
    ),
    Check(
        id="OR-DOC-ENV-001",
        name="variables",
        remedy="take it out of nccl.conf or the inventory: orchestrate explain shows what follows",
        judge=_risky_variables,
    ),
)
