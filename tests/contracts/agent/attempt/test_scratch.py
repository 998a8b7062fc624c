"""``{scratch}``: a directory with a short path that lives as long as its attempt."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from orchestrator.node_agent.base.node_layout import AttemptLayout
from tests.contracts.agent.attempts import Attempt, eventually, exists, shell

pytestmark = pytest.mark.processes


def _scratch(attempt: Attempt) -> Path:
    return Path(AttemptLayout(str(attempt.root)).scratch)


async def test_it_is_there_for_the_ranks_and_gone_afterwards(attempt: Attempt) -> None:
    """Private, short enough for what Ray makes of it, and new in every attempt."""
    scratch = _scratch(attempt)
    scratch.mkdir()
    (scratch / "old").touch()
    await attempt.launch(shell(0, "touch {scratch}/new; ls {scratch}; stat -c %a {scratch}"))
    await attempt.to_end()

    assert attempt.files["rank-0.out"] == b"new\n700\n"
    assert not scratch.exists()
    assert len(str(scratch)) <= 24


async def test_a_sweep_removes_what_a_killed_supervisor_left(attempt: Attempt) -> None:
    scratch = _scratch(attempt)
    reply = await attempt.launch(shell(0, "touch {scratch}/socket; echo up; sleep 300"))
    await attempt.follow(lambda a: "rank-0.out" in a.files)
    supervisor = reply.fields["supervisor"]["pid"]
    os.kill(supervisor, signal.SIGKILL)
    await eventually(lambda: not exists(supervisor))
    assert scratch.exists()

    await attempt.ask("sweep")
    assert not scratch.exists()


async def test_without_the_word_there_is_none(attempt: Attempt) -> None:
    scratch = _scratch(attempt)
    await attempt.launch(shell(0, f"cd {scratch.parent}; ls -d {scratch.name}"))
    await attempt.to_end()
    assert attempt.only("rank-exited")["outcome"] != {"exited": 0}


async def test_a_link_in_its_place_is_not_followed(attempt: Attempt, tmp_path: Path) -> None:
    """Whoever can write there cannot make us remove something else."""
    (tmp_path / "precious").touch()
    scratch = _scratch(attempt)
    scratch.symlink_to(tmp_path)
    try:
        await attempt.launch(shell(0, "exit 0"))
        await attempt.to_end()
        assert (tmp_path / "precious").exists()
        assert scratch.is_symlink()
    finally:
        scratch.unlink()
