"""Plans for people: everything that will run is on the page, nothing secret is."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.command import Secret
from orchestrator.core.model.plan import Exclusion, Plan, Variable
from orchestrator.view.tables.plan_text import Travel, kept_text, number_ranges, plan_lines
from tests.core.world import World, request


def made() -> Plan:
    plan = World(request("a", "b")).run().plan
    assert plan is not None
    return plan


def test_a_plan_tells_every_argv_and_variable_with_its_reason() -> None:
    """Per node the exact command and each variable with origin and reason."""
    plan = made()
    text = "\n".join(plan_lines(plan, None))
    for share in plan.nodes:
        for process in share.processes:
            assert all(word in text for word in process.argv)
        for variable in share.env:
            line = f"{variable.name}={variable.value}   # {variable.origin}: {variable.reason}"
            assert line in text
    for rung in plan.ladder:
        assert f"{rung.rung}: {rung.reason}" in text
    assert "connect 30.0 s" in text
    assert "run as long as it needs" in text


def test_a_plan_tells_what_travels_what_is_left_out_and_what_is_assumed() -> None:
    """Bytes, skipped files, excluded nodes, warnings; an assumed plan says so."""
    plan = replace(
        made(), assumed=True, excluded=(Exclusion(node="c", reason="no GPU"),), warnings=("odd",)
    )
    travel = Travel(files=3, bytes=1_500_000, skipped=(".gitignore: 2 files",), warnings=("big",))
    text = "\n".join(plan_lines(plan, travel))
    for words in ["3 files, 1.5 MB", "left out: .gitignore: 2 files", "c: no GPU", "odd", "big"]:
        assert words in text
    assert "ASSUMED" in text
    kept = "\n".join(plan_lines(plan, travel, connections=kept_text(2, 600)))
    assert "to 2 nodes, kept for 10 min 00 s after their use; orchestrate connections" in kept
    assert "KEEP_CONNECTIONS is 0" in kept_text(2, 0)
    assert kept_text(0, 600) == ""
    assert "ASSUMED" not in "\n".join(plan_lines(made(), None))


def test_a_plan_hides_secrets_and_escapes() -> None:
    """A secret is ***; a value cannot steer the terminal."""
    plan = made()
    secret = Variable(name="TOKEN", value=Secret("hunter2"), origin="user", reason="--env")
    evil = Variable(name="EVIL", value="\x1b[2Jx", origin="user", reason="\x1b]0;x\x07y")
    first = replace(plan.nodes[0], env=(secret, evil))
    text = "\n".join(plan_lines(replace(plan, nodes=(first, *plan.nodes[1:])), None))
    assert "hunter2" not in text
    assert "TOKEN=***" in text
    assert "\x1b" not in text


@given(st.sets(st.integers(0, 40)))
def test_ranges_name_exactly_the_numbers(numbers: set[int]) -> None:
    """What is folded can be read back."""
    text = number_ranges(tuple(numbers))
    if not numbers:
        assert text == "none"
        return
    read: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        read.update(range(int(first), int(last or first) + 1))
    assert read == numbers


def test_a_plan_says_what_happens_without_a_coordinator() -> None:
    """In words: a number of seconds, or until the ranks are done."""
    plan = made()
    told = "\n".join(plan_lines(plan, None))
    assert "unattended\n  ranks end 60 s after the coordinator's last heartbeat" in told
    lasting = replace(plan, budgets=replace(plan.budgets, lease_s=None))
    told = "\n".join(plan_lines(lasting, None))
    assert "ranks run until they are done; orchestrate resume RUN collects them" in told
    assert "lease" not in told
