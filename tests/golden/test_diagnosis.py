"""Every rule has logs in which it is the first cause: its folder below ``diagnosis``.

``expected.json`` says what is to be found; ``facts.json`` (of nodes) and ``ends.json`` (of ranks)
stand for what a run knows beside logs. All other files are logs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.codec import from_json
from orchestrator.core.diagnosis.judge import judge, telling_lines
from orchestrator.core.diagnosis.knowing import from_facts
from orchestrator.core.diagnosis.model import MAX_EVIDENCE, End, Findings, Role, Source
from orchestrator.core.diagnosis.rules import BY_ID, DOMAINS
from orchestrator.core.facts import Facts
from orchestrator.core.outcome import Signalled
from orchestrator.edges.diagnosis.reading import Gathering
from orchestrator.edges.diagnosis.sources import log_sources

DOCUMENT = Path(__file__).parents[2] / "docs" / "diagnosis.md"
GOLDEN = Path(__file__).parent / "diagnosis"
CASES = sorted(path.name for path in GOLDEN.iterdir())


def findings_of(case: Path) -> Findings:
    """What the folder's logs, facts and endings say."""
    gathering = Gathering()
    for log in log_sources(case, "."):
        gathering.read_file(log.path, log.source)
    facts = {
        name: from_json(Facts, {"type": "Facts", "node": name, **known})
        for name, known in _read(case / "facts.json", {}).items()
    }
    ends = [
        End(
            source=Source(name="launcher.err", node=end["node"], rank=end["rank"]),
            outcome=Signalled(end["signal"]),
        )
        for end in _read(case / "ends.json", [])
    ]
    return judge(
        [*gathering.clues, *from_facts(facts)],
        remarks=gathering.remarks,
        ends=ends,
        sources=gathering.sources,
        telling=telling_lines(gathering.tails),
    )


def _read(path: Path, otherwise: Any) -> Any:
    return json.loads(path.read_text()) if path.exists() else otherwise


def brief(findings: Findings) -> dict[str, Any]:
    """The part of findings that expectations hold."""
    found = findings.diagnosis
    assert found is not None
    return {
        "first": found.id,
        "confidence": found.confidence.value,
        "cause": found.cause,
        "node": found.node,
        "rank": found.rank,
        "advice": found.advice.value,
        "evidence": [line.place for line in found.evidence],
        "consequences": list(found.consequences),
        "harmless": list(findings.harmless),
    }


def test_every_rule_has_a_case_and_every_case_a_rule() -> None:
    """A rule that was never seen to match is a guess."""
    assert sorted(BY_ID) == CASES


@pytest.mark.parametrize("case", CASES)
def test_first_cause(case: str) -> None:
    """Each rule is the first cause in its own case; a harmless one is seen and not blamed."""
    findings = findings_of(GOLDEN / case)

    assert brief(findings) == json.loads((GOLDEN / case / "expected.json").read_text())
    assert findings.diagnosis is not None
    if BY_ID[case].role is Role.HARMLESS:
        assert case in findings.harmless
        assert findings.diagnosis.id != case
    else:
        assert findings.diagnosis.id == case
    assert 1 <= len(findings.diagnosis.evidence) <= MAX_EVIDENCE
    assert findings.diagnosis.evidence[0].text


def table() -> list[str]:
    """The rows of the document, one for each rule."""
    return [
        f"| `{rule.id}` | {rule.title} | {rule.role.name.lower()} | {rule.advice.value} |"
        for rules in DOMAINS.values()
        for rule in rules
    ]


def test_the_document_lists_every_rule() -> None:
    """Row by row what the rules say of themselves, in their order."""
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]

    assert rows == table()
