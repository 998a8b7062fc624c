"""`--budget NAME=SECONDS`: what is understood, and what is refused before anything is contacted."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli.options.option_values import parse_budgets
from orchestrator.core.base.errors import ExitCode, UsageError
from orchestrator.core.model.plan import Budgets
from orchestrator.core.verdict.result import FailureResult, Result, Status
from orchestrator.view.result.failure_screen import failure_screen


@pytest.mark.parametrize(
    "words,seconds,asked",
    [((), 600.0, False), (("hang=95",), 95.0, True), (("hang=off",), None, True)],
)
def test_how_long_ranks_may_be_silent(
    words: tuple[str, ...], seconds: float | None, asked: bool
) -> None:
    """Whether it was asked for decides whether ranks that report nothing are judged at all."""
    made = parse_budgets(words, None)
    assert (made.hang_s, made.hang_asked) == (seconds, asked)


@pytest.mark.parametrize("words,seconds", [((), 15.0), (("link=40",), 40.0), (("link=off",), None)])
def test_how_long_links_may_be_broken(words: tuple[str, ...], seconds: float | None) -> None:
    assert parse_budgets(words, None).link_s == seconds


def test_other_budgets_cannot_be_switched_off() -> None:
    with pytest.raises(UsageError, match="--budget connect"):
        parse_budgets(("connect=off",), None)


@pytest.mark.parametrize("word", ["hang=soon", "hang=", "hang=0", "hang_asked=1", "hnag=5"])
def test_what_is_no_budget_is_refused(word: str) -> None:
    with pytest.raises(UsageError):
        parse_budgets((word,), None)


def test_defaults_stay_where_nothing_is_given() -> None:
    assert parse_budgets((), None) == Budgets()


def test_the_failure_screen_says_where_the_evidence_lies(tmp_path: Path) -> None:
    failure = FailureResult(id="OR-HANG-001", cause="rank 1 on b is stopped", evidence="hang")
    ended = Result(
        run_id="r1",
        status=Status.FAILED,
        exit_code=ExitCode.RUN_FAILED,
        cluster="c",
        workload="w",
        launcher="torchrun",
        world_size=2,
        failure=failure,
    )
    assert any(str(tmp_path / "hang") in line for line in failure_screen(ended, tmp_path))
    assert not any("evidence" in line for line in failure_screen(ended, None))
