"""Which clues may be blamed: not what only follows from others, what was survived, or is old."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestrator.core.diagnosis.diagnosis_model import Clue, Domain, LogRole
from orchestrator.core.diagnosis.observations import SERVES, WENT_ON, Remark, find_lives

OLD_S = 2 * 3600.0  # before what failed: longer than those who wait for a lost GPU wait
_MISMATCH, _WAITED = "TORCH-COLL-002", "TORCH-COLL-001"
_CANCELLED = "LAUNCH-CANCEL-001"
_VERSIONS = "NCCL-VER-002"


def with_explanations(clues: list[Clue]) -> list[Clue]:
    """Without what only follows from another rule's find, which thereby is known to matter."""
    found = {clue.rule.id for clue in clues}
    follows = {name for clue in clues for name in clue.rule.explains}
    return [
        replace(clue, explaining=not found.isdisjoint(clue.rule.explains))
        for clue in clues
        if clue.rule.id not in follows
    ]


def without_explained(clues: list[Clue]) -> list[Clue]:
    """Not that a library failed without a reason or a process aborted, where the same writer tells
    before that whom it lost or waited for; a line without a rank may be any rank's of its node and
    file.
    """
    suffered: dict[tuple[str, object], int] = {}
    for clue in clues:
        if clue.role is LogRole.VICTIM:
            writer = clue.writer or clue.source
            for who in (writer.key, writer.node, None):
                key = (writer.name, who)
                suffered[key] = min(suffered.get(key, clue.line), clue.line)

    def is_explained(clue: Clue) -> bool:
        writer = clue.writer or clue.source
        who = writer.key if writer.rank is not None else writer.node or None
        return suffered.get((writer.name, who), clue.line + 1) <= clue.line

    def is_open(clue: Clue) -> bool:
        return clue.role is LogRole.VAGUE or clue.rule.aftermath

    return [clue for clue in clues if not (is_open(clue) and is_explained(clue))]


def without_survived(clues: list[Clue], ends: Mapping[str, int]) -> list[Clue]:
    """Not what a program met before it ended well (in these lines of logs), unless nothing but that
    explains what its launcher or others say after it.
    """

    def was_survived(clue: Clue) -> bool:
        before = 0 < clue.line < ends.get(clue.source.name, 0)
        return before and clue.rule.domain is not Domain.HARDWARE

    left = [clue for clue in clues if not was_survived(clue)]
    failed = any(clue.role <= LogRole.VICTIM for clue in left)
    known = any(clue.role <= LogRole.FAILURE for clue in left)
    return left if known or not failed else clues


def without_outlived(clues: list[Clue], remarks: Sequence[Remark]) -> list[Clue]:
    """Not what its writer outlived: it trained on, or served on. What a program prints may reach a
    log late, so that an exception counts unless its writer failed once more after that.
    """
    trained, served = find_lives(remarks, WENT_ON), find_lives(remarks, SERVES)
    failed: dict[tuple[object, ...], int] = {}
    for clue in clues:
        if clue.role <= LogRole.VICTIM:
            failed[_place(clue)] = max(clue.line, failed.get(_place(clue), 0))

    def was_outlived(clue: Clue) -> bool:
        life = max((trained[place] for place in _lives_like(clue, trained)), default=0)
        late = clue.thrown and not clue.mild and failed.get(_place(clue), 0) <= life
        return clue.line < served.get(_place(clue), 0) or (clue.line < life and not late)

    return [c for c in clues if c.rule.domain is Domain.HARDWARE or not was_outlived(c)]


def _lives_like(clue: Clue, lives: Mapping[tuple[object, ...], int]) -> list[tuple[object, ...]]:
    """Whose life shows that ``clue`` was outlived: its writer's; of a warning anybody's of that
    log; of what a library wrote of its node also that of a program without a prefix.
    """
    writer = clue.writer or clue.source
    nobody = (writer.name, ("", writer.name, None))
    own = {_place(clue)} if writer.rank is not None else {_place(clue), nobody}
    anybody = clue.mild and not writer.node
    return [place for place in lives if place in own or (anybody and place[0] == writer.name)]


def _place(clue: Clue) -> tuple[object, ...]:
    writer = clue.writer or clue.source
    return writer.name, writer.key


def without_old_hardware(clues: list[Clue]) -> list[Clue]:
    """Not what hardware reported hours before the first failure, as kernel logs keep it for days,
    where anything nearer to it explains itself.
    """
    hardware = [c for c in clues if c.rule.domain is Domain.HARDWARE and c.at is not None]
    others = [c for c in clues if c.rule.domain is not Domain.HARDWARE and c.at is not None]
    failed = [c.at for c in others if c.at is not None and c.role <= LogRole.STOPPED]
    if not hardware:
        return clues
    end = min(failed) if failed else max(c.at or 0.0 for c in hardware)
    old = {c.order for c in hardware if (c.at or 0.0) < end - OLD_S}
    left = [c for c in clues if c.order not in old]
    return left if any(c.role <= LogRole.FAILURE for c in left) else clues


def without_idle_versions(clues: list[Clue]) -> list[Clue]:
    """Not that ranks run different versions of NCCL, where anything else explains itself."""
    if not any(c.role is LogRole.CAUSE and not (c.joint or c.mild) for c in clues):
        return clues
    return [clue for clue in clues if not (clue.joint and clue.rule.id == _VERSIONS)]


def without_later_mismatch(clues: list[Clue]) -> list[Clue]:
    """Not that ranks waited in different collectives, where one of them, or another, had failed on
    its own before: then those who were left wait wherever they stood.
    """
    waited: dict[object, int] = {}
    for clue in clues:
        if clue.rule.id == _WAITED:
            waited.setdefault(clue.source.key, clue.line)

    def failed_before(clue: Clue) -> bool:
        own = clue.role <= LogRole.FAILURE and not clue.joint and not clue.mild
        return own and clue.line < waited.get(clue.source.key, clue.line + 1)

    if not any(failed_before(clue) for clue in clues if clue.rule.id != _MISMATCH):
        return clues
    return [clue for clue in clues if not (clue.joint and clue.rule.id == _MISMATCH)]


def without_cancelled(clues: list[Clue]) -> list[Clue]:
    """Not what follows in a log from its job's being cancelled; nor that it was, where a rank had
    failed or waited in vain before: people cancel what hangs.
    """
    begins: dict[str, int] = {}
    for clue in clues:
        if clue.rule.id == _CANCELLED:
            name = clue.source.name
            begins[name] = min(clue.line, begins.get(name, clue.line))

    def is_before(clue: Clue) -> bool:
        own = clue.role <= LogRole.VICTIM and not clue.mild
        return own and clue.line < begins.get(clue.source.name, 0)

    if any(is_before(clue) for clue in clues):
        return [clue for clue in clues if clue.rule.id != _CANCELLED]
    return [
        clue
        for clue in clues
        if clue.rule.id == _CANCELLED
        or clue.rule.domain is Domain.HARDWARE
        or clue.line <= begins.get(clue.source.name, clue.line)
    ]
