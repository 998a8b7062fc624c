"""Every rule has logs in which it is the first cause: the folders below ``diagnosis/ID``.

``expected.json`` says what is to be found (and ``thread``, where people showed logs of that kind);
``facts.json`` (of nodes) and ``ends.json`` (of ranks)
stand for what a run knows beside logs. All other files are logs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.diagnosis.log_reader import Gathering
from orchestrator.adapters.diagnosis.log_sources import log_sources
from orchestrator.core.base.codec import from_json
from orchestrator.core.base.outcome import Signalled
from orchestrator.core.diagnosis.diagnosis_model import (
    MAX_EVIDENCE,
    End,
    Findings,
    LogRole,
    LogSource,
)
from orchestrator.core.diagnosis.facts_as_clues import from_facts
from orchestrator.core.diagnosis.first_cause import find_first_cause
from orchestrator.core.diagnosis.named_cause import telling_lines
from orchestrator.core.diagnosis.rules import BY_ID, DOMAINS
from orchestrator.core.model.facts import Facts

DOCUMENT = Path(__file__).parents[2] / "docs" / "diagnosis.md"
GOLDEN = Path(__file__).parent / "diagnosis"
CASES = sorted(
    path.parent.relative_to(GOLDEN).as_posix() for path in GOLDEN.glob("*/*/expected.json")
)

# What healthy runs write, and what only looks like trouble.
HEALTHY = """\
W0321 02:07:08.004000 41 torch/distributed/run.py:793] Setting OMP_NUM_THREADS to be 1 in default
gpu01:4711:4711 [0] NCCL INFO Bootstrap: Using eth0:10.0.0.4<0>
gpu01:4711:4711 [0] NCCL INFO NET/Plugin: dlerror=libnccl-net.so: cannot open shared object file: \
No such file or directory No plugin found (libnccl-net.so), using internal implementation
gpu01:4711:4890 [0] NCCL INFO NET/IB : Using [0]mlx5_0:1/IB [RO]; OOB eth0:10.0.0.4<0>
gpu01:4711:4890 [0] NCCL INFO NVLS multicast support is available on dev 0
NCCL version 2.26.2+cuda12.6
libibverbs: Warning: couldn't open config directory '/etc/libibverbs.d'.
[W321 02:07:08.1 socket.cpp:764] [c10d] The client socket has failed to connect to \
[::ffff:10.0.0.4]:29500 (errno: 111 - Connection refused).
FutureWarning: `torch.cuda.amp.autocast(args...)` is deprecated.
Could not load dynamic library 'libx.so.7'; dlerror: libx.so.7: cannot open shared object file
step 100 loss 0.39 error rate 0.01, ValueErrors: 0, Killed: 0, permission denied: 0
retrying after Error 503 from the tracker; out of memory guard: on
[rank0]:[W321 02:17:08.1 ProcessGroupNCCL.cpp:1250] Warning: destroy_process_group() was not called
"""


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
            source=LogSource(name="launcher.err", node=end["node"], rank=end["rank"]),
            outcome=Signalled(end["signal"]),
        )
        for end in _read(case / "ends.json", [])
    ]
    return find_first_cause(
        [*gathering.clues, *from_facts(facts)],
        remarks=gathering.remarks,
        ends=ends,
        sources=gathering.sources,
        telling=telling_lines(gathering.tails),
        tails=gathering.tails,
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
    assert {case.partition("/")[0] for case in CASES} == set(BY_ID)
    assert {path.parent.relative_to(GOLDEN).as_posix() for path in GOLDEN.glob("*/*/*")} == set(
        CASES
    )


@pytest.mark.parametrize("case", CASES)
def test_first_cause(case: str) -> None:
    """Each rule is the first cause in its own cases; a harmless one is seen and not blamed."""
    rule = BY_ID[case.partition("/")[0]]
    expected = json.loads((GOLDEN / case / "expected.json").read_text())
    expected.pop("thread", None)

    findings = findings_of(GOLDEN / case)

    found = brief(findings)
    assert {key: found[key] for key in expected} == expected
    assert findings.diagnosis is not None
    if rule.role is LogRole.HARMLESS:
        assert rule.id in findings.harmless
        assert findings.diagnosis.id != rule.id
    else:
        assert findings.diagnosis.id == rule.id
    assert 1 <= len(findings.diagnosis.evidence) <= MAX_EVIDENCE
    assert findings.diagnosis.evidence[0].text


def test_a_healthy_log_is_not_blamed_for_anything(tmp_path: Path) -> None:
    """Warnings, names of errors and words about them are no failures."""
    for rank in range(2):
        (tmp_path / f"rank-{rank}.log").write_text(HEALTHY)

    findings = findings_of(tmp_path)

    assert findings.diagnosis is None
    assert findings.harmless == ("NCCL-IB-008", "TORCH-RDZV-006")


@pytest.mark.parametrize(
    "end, well",
    [
        ("Training completed. Model saved", True),
        ("==== 41 passed, 3 warnings in 58.21s ====", True),
        ("==== 1 failed, 41 passed in 58.21s ====", False),
        ("Ran 41 tests in 5.2s\n\nOK (skipped=1)", True),
        ("OK", False),
        ("[done] exit code 0", True),
        ("gpu01: exit code 0", False),
        ("[done] exit code 01", False),
        ("Training completed" + "\nwaiting for files" * 40, False),
    ],
)
def test_a_log_that_ends_well_is_said_to(tmp_path: Path, end: str, well: bool) -> None:
    """Where its last lines prove it; what it met before is not blamed then."""
    (tmp_path / "job.log").write_text(f"{HEALTHY}{end}\n")

    findings = findings_of(tmp_path)

    assert (findings.diagnosis, findings.ended_well is not None) == (None, well)


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
