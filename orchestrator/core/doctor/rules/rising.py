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
    fail_answer,
    unknown_answer,
)


def _rising_on_ports(look: CheckedNode) -> CheckAnswer:
    before = {(hca.name, hca.port): hca.errors for hca in look.facts.hcas}
    return _grown_counters(
        look.subject,
        (
            (f"{hca.name}:{hca.port} {name}", before.get((hca.name, hca.port), {}).get(name), now)
            for hca in (look.subject.later.hcas if look.subject.later else ())
            for name, now in hca.errors.items()
        ),
    )


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
        return unknown_answer("it could not be asked a second time")
    known = [(name, old, new) for name, old, new in counters if old is not None and new is not None]
    if not known:
        return unknown_answer("no counter could be read")
    grown = [f"{name} +{new - old}" for name, old, new in known if new > old]
    return fail_answer(", ".join(grown)) if grown else OK


def _changed_links(look: CheckedNode) -> CheckAnswer:
    """Ports that came or went between the two looks."""
    if look.subject.later is None:
        return unknown_answer("it could not be asked a second time")
    if not look.facts.hcas:
        return NONE
    now = {(hca.name, hca.port): hca.state for hca in look.subject.later.hcas}
    changed = [
        f"{hca.name}:{hca.port} {hca.state} -> {now.get((hca.name, hca.port), 'gone')}"
        for hca in look.facts.hcas
        if now.get((hca.name, hca.port)) != hca.state
    ]
    return fail_answer("; ".join(changed)) if changed else OK


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
)
