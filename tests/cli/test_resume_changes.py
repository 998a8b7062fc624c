"""What ``resume`` takes for a change: what the user changed, not what the program learnt since."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.adapters.store.layout import RunFolder
from orchestrator.cli.commands.runs.resume import changes_of
from orchestrator.core.base.codec import to_json
from orchestrator.engine.oneshot.cleanup import read_request
from tests.cli.runs_on_disk import begin
from tests.core.world import request

UNASKED: Any = None  # the code is only looked at when its digest differs


def without(folder: RunFolder, *fields: str) -> None:
    """As a version wrote it that did not know these."""
    value = json.loads(folder.request.read_text())
    for name in fields:
        del value[name]
    folder.request.write_text(json.dumps(value))


def test_a_run_of_an_earlier_version_has_not_changed(tmp_path: Path) -> None:
    folder, now = begin(tmp_path), request("a", "b")
    without(folder, "fabric_probe", "fabric_cache", "launcher_options", "samples", "token")
    stored = read_request(folder)
    assert stored == now
    assert changes_of(folder, stored, now, UNASKED) == []


def test_what_was_changed_is_named(tmp_path: Path) -> None:
    folder, now = begin(tmp_path), replace(request("a", "b"), exclusive=True)
    without(folder, "samples")
    (change,) = changes_of(folder, read_request(folder), now, UNASKED)
    assert "exclusive" in change
    assert to_json(now)["exclusive"] is True


def test_another_commit_of_the_same_files_is_no_change(tmp_path: Path) -> None:
    folder, now = begin(tmp_path), request("a", "b")
    stored = replace(read_request(folder), commit="78edfa2f449ba14d6d1207138295593d5bbb8e16")
    assert changes_of(folder, stored, now, UNASKED) == []
