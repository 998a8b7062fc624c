"""What grows while somebody looks: errors that happen now, not at some time since the boot."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.doctor.check_model import (
    NONE,
    OK,
    Check,
    CheckAnswer,
    CheckedNode,
    Judge,
    Level,
    Needs,
    Subject,
    answer_each,
    fail_answer,
    unknown_answer,
)
from orchestrator.core.doctor.rules.counter_rates import judge_growth
from orchestrator.core.doctor.rules.host import stuck_text

NO_SECOND_LOOK = "it could not be asked a second time"


def _rising_on_ports(look: CheckedNode) -> CheckAnswer:
    """By the rates that links bear; see :mod:`counter_rates`."""
    later = look.subject.later
    if later is None:
        return unknown_answer(NO_SECOND_LOOK)
    before = {(hca.name, hca.port): hca.errors for hca in look.facts.hcas}
    answers = [
        (f"{hca.name}:{hca.port}", judge_growth(name, now - old, look.subject.apart_s))
        for hca in later.hcas
        for name, now in hca.errors.items()
        if (old := before.get((hca.name, hca.port), {}).get(name)) is not None
    ]
    return answer_each("port", answers) if answers else unknown_answer("no counter could be read")


def _rising_on_gpus(look: CheckedNode) -> CheckAnswer:
    before = {gpu.index: gpu for gpu in look.facts.gpus}

    def counters() -> Iterator[tuple[str, int | None, int | None]]:
        for gpu in look.subject.later.gpus if look.subject.later else ():
            old = before.get(gpu.index)
            if old is not None:
                label = f"GPU {gpu.index}"
                yield f"{label} uncorrected ECC", old.ecc.uncorrected, gpu.ecc.uncorrected
                yield f"{label} corrected ECC", old.ecc.corrected, gpu.ecc.corrected
                yield f"{label} NVLink errors", old.nvlink.errors, gpu.nvlink.errors

    return _grown_counters(look.subject, counters())


def _grown_counters(
    subject: Subject, counters: Iterator[tuple[str, int | None, int | None]]
) -> CheckAnswer:
    if subject.later is None:
        return unknown_answer(NO_SECOND_LOOK)
    known = [(name, old, new) for name, old, new in counters if old is not None and new is not None]
    if not known:
        return unknown_answer("no counter could be read")
    grown = [f"{name} +{new - old}" for name, old, new in known if new > old]
    return fail_answer(", ".join(grown)) if grown else OK


def _changed_links(look: CheckedNode) -> CheckAnswer:
    """Ports that came or went between the two looks."""
    if look.subject.later is None:
        return unknown_answer(NO_SECOND_LOOK)
    if not look.facts.hcas:
        return NONE
    now = {(hca.name, hca.port): hca.state for hca in look.subject.later.hcas}
    changed = [
        f"{hca.name}:{hca.port} {hca.state} -> {now.get((hca.name, hca.port), 'gone')}"
        for hca in look.facts.hcas
        if now.get((hca.name, hca.port)) != hca.state
    ]
    return fail_answer("; ".join(changed)) if changed else OK


def _stuck_processes(look: CheckedNode) -> CheckAnswer:
    """One sleep, or one dead process, that lasted from the first look to the second."""
    later = look.subject.later
    if later is None:
        return unknown_answer(NO_SECOND_LOOK)
    if look.facts.stuck is None or later.stuck is None:
        return unknown_answer("processes")
    before = set(look.facts.stuck)
    lasting = [one for one in later.stuck if one.sleeps is not None and one in before]
    return fail_answer(stuck_text(lasting)) if lasting else OK


def _rising_check(number: int, name: str, remedy: str, judge: Judge, needs: Needs) -> Check:
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
