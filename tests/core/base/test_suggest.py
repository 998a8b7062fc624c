"""What an unknown name is answered with: the nearest, or a few and how many more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.suggest import (
    SHOWN_RUNS,
    did_you_mean,
    did_you_mean_run,
    nearest_name,
)

IDS = st.lists(st.from_regex(r"2026\d{4}-run-[0-9a-f]{4}", fullmatch=True), min_size=1, unique=True)


@given(IDS)
def test_an_unlike_name_shows_the_newest_runs_and_counts_the_others(ids: list[str]) -> None:
    """However many there are, the line stays short, and none is left uncounted."""
    said = did_you_mean_run("!", ids)

    shown = [run_id for run_id in ids if run_id in said]
    assert shown == ids[:SHOWN_RUNS]
    more = len(ids) - len(shown)
    assert said.endswith(f", and {more} more") == (more > 0)


def test_a_name_that_is_nearly_right_is_proposed_alone() -> None:
    ids = ["20261130-sleep-7f3a", "20261129-train-0001"]
    assert did_you_mean_run("20261130-slep-7f3a", ids) == "did you mean '20261130-sleep-7f3a'?"


def test_many_valid_names_are_counted() -> None:
    names = [f"name{number:02}" for number in range(68)]
    assert did_you_mean("!", names).endswith("name59, and 8 more")
    assert did_you_mean("!", names[:12]).endswith("name11")


KEYS = (
    "base env gpus key known_hosts min_nodes name nodes port prices python ssh ssh_config user"
).split()
KEYS += ["batch_size", "learning_rate", "transport", "workdir"]


@pytest.mark.parametrize(
    "wrong,meant",
    [
        ("pyhtno", "python"),
        ("usr", "user"),
        ("naem", "name"),
        ("known-hosts", "known_hosts"),
        ("sshConfig", "ssh_config"),
        ("batch", "batch_size"),
        ("ssh_key", "key"),
        ("trans", "transport"),
        ("lerning_rte", "learning_rate"),
        ("work_dir", "workdir"),
    ],
)
def test_slips_separators_and_parts_of_a_name_lead_to_it(wrong: str, meant: str) -> None:
    assert nearest_name(wrong, KEYS) == meant


@pytest.mark.parametrize(
    "wrong",
    ["password", "hostname", "timeout", "image", "address", "environment", "jump", "lr", ""],
)
def test_a_name_that_is_only_a_little_alike_is_no_hint(wrong: str) -> None:
    """``password`` was answered with ``workdir``."""
    assert nearest_name(wrong, KEYS) is None


@given(st.sampled_from(KEYS), st.integers(0, 20), st.sampled_from("abcxyz_0"))
def test_one_letter_too_many_is_always_seen_through(name: str, place: int, letter: str) -> None:
    assert nearest_name(name[:place] + letter + name[place:], KEYS) in KEYS


@given(st.text(max_size=300), st.lists(st.text(max_size=300), max_size=5))
def test_any_text_has_an_answer(name: str, names: list[str]) -> None:
    assert nearest_name(name, names) in {*names, None}
