"""What grows while somebody looks: errors that happen now, not at some time since the boot."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from orchestrator.core.doctor.check_model import (
    NONE,
    OK,
    Check,
    CheckAnswer,
    CheckedNode,
    Level,
    Needs,
    answer_each,
    fail_answer,
    unknown_answer,
)
from orchestrator.core.doctor.rules.counter_rates import judge_growth
from orchestrator.core.doctor.rules.host import stuck_text
from orchestrator.core.model.facts import Facts, Gpu

NO_COUNTER = "no counter could be read"
Compare = Callable[[CheckedNode, Facts], CheckAnswer]  # with what the second look found


def _rising_on_ports(look: CheckedNode, later: Facts) -> CheckAnswer:
    """By the rates that links bear; see :mod:`counter_rates`."""
    before = {(hca.name, hca.port): hca.errors for hca in look.facts.hcas}
    answers = [
        (f"{hca.name}:{hca.port}", judge_growth(name, now - old, look.subject.apart_s))
        for hca in later.hcas
        for name, now in hca.errors.items()
        if (old := before.get((hca.name, hca.port), {}).get(name)) is not None
    ]
    return answer_each("port", answers) if answers else unknown_answer(NO_COUNTER)


def _rising_on_gpus(look: CheckedNode, later: Facts) -> CheckAnswer:
    before = {gpu.index: gpu for gpu in look.facts.gpus}
    known = [
        (f"GPU {gpu.index} {name}", new - old)
        for gpu in later.gpus
        if gpu.index in before
        for name, old, new in _error_counters(before[gpu.index], gpu)
        if old is not None and new is not None
    ]
    if not known:
        return unknown_answer(NO_COUNTER)
    grown = [f"{name} +{more}" for name, more in known if more > 0]
    return fail_answer(", ".join(grown)) if grown else OK


def _error_counters(old: Gpu, new: Gpu) -> Iterator[tuple[str, int | None, int | None]]:
    yield "uncorrected ECC", old.ecc.uncorrected, new.ecc.uncorrected
    yield "corrected ECC", old.ecc.corrected, new.ecc.corrected
    yield "NVLink errors", old.nvlink.errors, new.nvlink.errors


def _changed_links(look: CheckedNode, later: Facts) -> CheckAnswer:
    """Ports that came or went between the two looks."""
    if not look.facts.hcas:
        return NONE
    now = {(hca.name, hca.port): hca.state for hca in later.hcas}
    changed = [
        f"{hca.name}:{hca.port} {hca.state} -> {now.get((hca.name, hca.port), 'gone')}"
        for hca in look.facts.hcas
        if now.get((hca.name, hca.port)) != hca.state
    ]
    return fail_answer("; ".join(changed)) if changed else OK


def _stuck_processes(look: CheckedNode, later: Facts) -> CheckAnswer:
    """One sleep, or one dead process, that lasted from the first look to the second."""
    if look.facts.stuck is None or later.stuck is None:
        return unknown_answer("processes")
    before = set(look.facts.stuck)
    lasting = [one for one in later.stuck if one.sleeps is not None and one in before]
    return fail_answer(stuck_text(lasting)) if lasting else OK


def _rising_check(number: int, name: str, remedy: str, compare: Compare, needs: Needs) -> Check:
    def judge(look: CheckedNode) -> CheckAnswer:
        later = look.subject.later
        if later is None:
            return unknown_answer("it could not be asked a second time")
        return compare(look, later)

    return Check(
        id=f"OR-DOC-GROW-{number:03}",
        name=name,
        remedy=remedy,
        judge=judge,
        needs=needs,
        level=Level.TWO_MINUTES,
    )


CHECKS = (
    _rising_check(
        1,
        "port errors grow",
        "reseat or replace the cable and the transceiver of that port",
        _rising_on_ports,
        Needs.ADAPTERS,
    ),
    _rising_check(
        2,
        "ports steady",
        "the link flaps: cable, transceiver, or the switch port",
        _changed_links,
        Needs.ADAPTERS,
    ),
    _rising_check(
        3,
        "GPU errors grow",
        "drain the node; reset the GPU; replace it if errors continue",
        _rising_on_gpus,
        Needs.GPUS,
    ),
    _rising_check(
        4,
        "processes end",
        "cat /proc/PID/wchan says what it waits for: a file system, a driver; else reboot",
        _stuck_processes,
        Needs.NOTHING,
    ),
)
