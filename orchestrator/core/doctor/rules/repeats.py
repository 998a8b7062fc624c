"""What comes back: faults by the examinations of the last weeks, as the coordinator kept them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from orchestrator.core.doctor.check_model import (
    NONE,
    OK,
    Check,
    CheckAnswer,
    CheckedNode,
    PastLook,
    fail_answer,
    unknown_answer,
)
from orchestrator.core.doctor.rules.gpus import NO_KERNEL_LOG, is_grave

DAY_S = 86400.0
XID_DAYS = 30
# NVSentinel's rule: a node that was repaired five times in seven days is taken out.
REPAIRS, REPAIR_DAYS = 5, 7
ANSWERS = "OR-DOC-NODE-001"
NO_RECORD = "its earlier examinations"


def _same_xid_again(look: CheckedNode) -> CheckAnswer:
    """A fault of a GPU that outlived a reboot."""
    if not look.facts.gpus and not any(past.xids for past in look.subject.past or ()):
        return NONE
    if look.subject.past is None:
        return unknown_answer(NO_RECORD)
    if look.facts.xids is None:
        return unknown_answer(NO_KERNEL_LOG)
    boots: dict[tuple[int, str], set[str]] = {}
    for boot, code, device in _xids_by_boot(look):
        boots.setdefault((code, device), set()).add(boot)
    again = [
        f"Xid {code} at {device} in {len(seen)} boots within {XID_DAYS} days"
        for (code, device), seen in boots.items()
        if len(seen) > 1
    ]
    return fail_answer("; ".join(again)) if again else OK


def _xids_by_boot(look: CheckedNode) -> Iterator[tuple[str, int, str]]:
    looks = _since(look, XID_DAYS)
    found = [(past.boot_id, past.xids) for past in looks]
    for boot, xids in [*found, (look.facts.boot_id, look.facts.xids or ())]:
        for xid in xids:
            if is_grave(xid):
                yield boot, xid.code, xid.pci


def _repairs(look: CheckedNode) -> CheckAnswer:
    """A check that failed and was well at the next examination is one repair."""
    if look.subject.past is None:
        return unknown_answer(NO_RECORD)
    count = count_repairs(_since(look, REPAIR_DAYS))
    if count < REPAIRS:
        return OK
    return fail_answer(f"well again {count} times within {REPAIR_DAYS} days")


def count_repairs(looks: Sequence[PastLook]) -> int:
    """How often something was repaired between two examinations, the oldest first. Of a node that
    does not answer nothing is known to be well.
    """
    answered = ((old, new) for old, new in pairwise(looks) if ANSWERS not in new.failed)
    return sum(bool(set(old.failed) - set(new.failed)) for old, new in answered)


def _since(look: CheckedNode, days: int) -> list[PastLook]:
    past = look.subject.past or ()
    return [one for one in past if one.at >= look.subject.at - days * DAY_S]


CHECKS = (
    Check(
        id="OR-DOC-HIST-001",
        name="same Xid again",
        remedy="a reboot does not cure it: dcgmi diag -r 4 or the field diagnostic, then replace",
        judge=_same_xid_again,
    ),
    Check(
        id="OR-DOC-HIST-002",
        name="repairs",
        remedy="take the node out until its cause is known: --nodes '!NAME'",
        judge=_repairs,
    ),
)
