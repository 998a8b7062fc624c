"""How often `orchestrate diagnose` names the right cause, on logs whose cause is known.

A corpus is a folder of cases; a case is a folder of logs with ``expected.json``: ``first`` (the id
of the rule), or ``right`` (ids that name the cause, null where no cause need be named), ``says`` (a
pattern in the sentence; without ids it alone decides), ``node`` and ``rank``.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .base.errors import BenchError
from .base.rounds import say

if TYPE_CHECKING:
    from orchestrator.core.diagnosis.diagnosis_model import Diagnosis

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
RULES, HOLDOUT = "diagnosis", "diagnosis_holdout"
MOST_UNKNOWN = 0.1  # of a corpus
RIGHT, QUOTED, UNKNOWN, WRONG = VERDICTS = ("right", "quoted", "unknown", "wrong")
QUOTES = "PY-EXC-001"  # it repeats an exception and knows nothing of it
_BESIDE = ("facts.json", "ends.json")  # what a run knows: without it such a case means nothing
LOG_S = 0.01  # what one took on two cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was said of one case; ``id`` None = no cause was named."""

    corpus: str
    case: str
    word: str
    id: str | None
    confidence: str
    cause: str
    expected: dict[str, Any]


def verdicts(golden: Path = GOLDEN) -> Iterator[Verdict]:
    """Of every case of every corpus, one by one. Raises :class:`BenchError` when there is none."""
    cases = [
        (name, folder, case)
        for name, folder in _corpora(golden)
        for case in sorted(path.parent for path in folder.rglob("expected.json"))
        if not any((case / beside).exists() for beside in _BESIDE)
    ]
    if not cases:
        raise BenchError(f"no logs with a known cause below {golden}")
    say(f"diagnose: {len(cases)} logs; about {len(cases) * LOG_S:.0f} s")
    for name, folder, case in cases:
        yield _verdict(name, folder, case)


def met(several: Sequence[Verdict]) -> bool:
    """None wrong, and of each corpus at most one in ten unknown."""
    shares = dict(_counts(several).items())
    return not any(
        counts[WRONG] or counts[UNKNOWN] > MOST_UNKNOWN * counts.total()
        for counts in shares.values()
    )


def diagnose_markdown(several: Sequence[Verdict]) -> str:
    """Shares of each corpus, then every case that was not named right."""
    lines = ["# diagnose: the cause of logs", "", "| corpus | logs |"]
    lines[-1] += "".join(f" {word} |" for word in VERDICTS)
    lines.append("|---|---|" + "---|" * len(VERDICTS))
    for corpus, counts in _counts(several).items():
        shares = "".join(f" {_share(counts, word)} |" for word in VERDICTS)
        lines.append(f"| {corpus} | {counts.total()} |{shares}")
    lines += ["", f"Target: none wrong, at most {MOST_UNKNOWN:.0%} unknown in each corpus.", ""]
    lines += [_line(each) for each in several if each.word != RIGHT]
    return "\n".join(lines).rstrip() + "\n"


def as_json(several: Sequence[Verdict]) -> str:
    """Every verdict, for machines."""
    return json.dumps({"schema_version": 1, "cases": [asdict(each) for each in several]}, indent=1)


def _corpora(golden: Path) -> Iterator[tuple[str, Path]]:
    yield "rules' own", golden / RULES
    for folder in sorted((golden / HOLDOUT).iterdir()) if (golden / HOLDOUT).is_dir() else ():
        yield f"held out: {folder.name}", folder


def _verdict(corpus: str, folder: Path, case: Path) -> Verdict:
    expected = json.loads((case / "expected.json").read_text())
    found = _diagnosis(case)
    return Verdict(
        corpus=corpus,
        case=case.relative_to(folder).as_posix(),
        word=judged(expected, found),
        id=found.id if found else None,
        confidence=found.confidence.value if found else "",
        cause=found.cause if found else "",
        expected=expected,
    )


def judged(expected: dict[str, Any], found: Diagnosis | None) -> str:
    """One of :data:`VERDICTS`. That the logs do not hold the cause, or hold no failure but what
    costs speed, is no wrong cause.
    """
    right = expected.get("right", [expected["first"]] if "first" in expected else [])
    by_words = "says" in expected and not any(right)  # its author knew no ids
    fits = (
        found is not None
        and re.search(expected.get("says", ""), found.cause) is not None
        and all(expected[key] == getattr(found, key) for key in ("node", "rank") if key in expected)
    )
    if fits and found is not None and (by_words or found.id in right):
        return RIGHT
    if found is None or (found.kind != "cause" and found.id not in right):
        return RIGHT if None in right else UNKNOWN
    return QUOTED if fits and found.id == QUOTES and "says" in expected else WRONG


def _diagnosis(case: Path) -> Diagnosis | None:
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from orchestrator.adapters.diagnosis.log_reader import Gathering
    from orchestrator.adapters.diagnosis.log_sources import log_sources
    from orchestrator.core.diagnosis.first_cause import find_first_cause

    gathering = Gathering()
    for log in log_sources(case, "."):
        gathering.read_file(log.path, log.source)
    return find_first_cause(
        gathering.clues, remarks=gathering.remarks, sources=gathering.sources
    ).diagnosis


def _counts(several: Sequence[Verdict]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for each in several:
        counts.setdefault(each.corpus, Counter())[each.word] += 1
    return counts


def _share(counts: Counter[str], word: str) -> str:
    return f"{counts[word]} ({counts[word] / counts.total():.0%})"


def _line(each: Verdict) -> str:
    what = f"{each.id} ({each.confidence}): {each.cause}" if each.id else "no cause named"
    wanted = each.expected.get("cause") or each.expected.get("first")
    return f"- {each.word}: {each.corpus}/{each.case}: {what}; right is: {wanted}"
