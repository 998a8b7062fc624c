"""What `scripts/bench sigterm` counts as a run that kept its checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_lib.sigterm import FAILS, STOPPED, SavingRun, lost_ranks, saving_markdown


def a_run(**changed: object) -> SavingRun:
    usual = {
        "launcher": "ray",
        "reason": FAILS,
        "lost": (),
        "asked_again": (),
        "code": 1,
        "seconds": 9.0,
    }
    return SavingRun(**{**usual, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changed,kept",
    [
        ({}, True),
        ({"reason": STOPPED, "code": 130}, True),
        ({"reason": STOPPED, "code": 1}, False),
        ({"lost": (2,)}, False),
        ({"asked_again": ("vh1/rank-0.out",)}, False),
    ],
)
def test_kept_is_all_saved_and_nobody_asked_twice(changed: dict[str, object], kept: bool) -> None:
    assert a_run(**changed).kept is kept


def test_the_rank_that_fails_has_nothing_to_save(tmp_path: Path) -> None:
    for host, rank in (("vh1", 0), ("vh1", 1), ("vh2", 2)):
        saved = tmp_path / "artifacts" / host / f"saved-{rank}"
        saved.parent.mkdir(parents=True, exist_ok=True)
        saved.touch()
    assert lost_ranks(tmp_path, FAILS) == ()
    assert lost_ranks(tmp_path, STOPPED) == (3,)
    (tmp_path / "artifacts" / "vh1" / "saved-1").unlink()
    assert lost_ranks(tmp_path, FAILS) == (1,)


def test_the_report_counts_by_launcher_and_reason() -> None:
    runs = [a_run(), a_run(reason=STOPPED, code=130), a_run(lost=(0,)), a_run(launcher="direct")]
    told = saving_markdown({"date": "today"}, runs)
    (ray,) = [line for line in told.splitlines() if "ray" in line]
    assert "2 of 3" in ray
    assert "1 of 2" in ray
    assert "1 of 1" in ray
