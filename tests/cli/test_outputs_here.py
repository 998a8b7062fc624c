"""Outputs of a real run on this machine: what comes, what does not, and what clean does then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli.main import main
from tests.cli.test_run_here import RUN, SourceLocation, last_line, place

pytestmark = pytest.mark.processes

__all__ = ["place"]

SCRIPT = """
import os
os.chdir(os.environ["ORCHESTRATE_OUTPUT_DIR"])
os.makedirs("hub/blobs"); os.makedirs("hub/snapshots/abc"); os.makedirs("ckpt-20")
os.makedirs("plots/later")
open("hub/blobs/9f", "w").write("weights")
os.symlink("../../blobs/9f", "hub/snapshots/abc/model.bin")
os.symlink(os.path.abspath("ckpt-20"), "latest")
open("ckpt-20/w", "w").write("w")
if os.environ["RANK"] == "0":
    open(os.path.join(os.environ["TMPDIR"], "final.bin"), "w").write("the only copy")
    os.symlink(os.path.join(os.environ["TMPDIR"], "final.bin"), "final.bin")
    open("eval\\ttab.txt", "w").write("x")
"""


def test_what_does_not_come_is_told_and_kept(
    place: SourceLocation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the node's line, as a warning, in JSON and in the report; clean asks before it removes."""
    (place.project / "job.py").write_text(SCRIPT)
    words = place.words("job.py")
    at = words.index("--")
    assert main([*words[:at], "--env", f"TMPDIR={tmp_path}", *words[at:]]) == 0
    out = capsys.readouterr().out
    result = last_line(out)
    folder = place.home / "runs" / RUN

    root = folder / "artifacts" / "n1"
    assert (root / "hub/snapshots/abc/model.bin").read_text() == "weights"
    assert (root / "latest").readlink() == Path("ckpt-20")
    assert list((root / "plots/later").iterdir()) == []
    outputs = result["outputs"]
    assert isinstance(outputs, dict)
    assert (outputs["n1"]["files"], outputs["n1"]["links"], outputs["n1"]["left"]) == (2, 2, 2)
    assert outputs["n2"]["left"] == 0
    told = ["eval?tab.txt: its name is too long or not printable", "final.bin: a link to "]
    for words_of, text in zip(told, outputs["n1"]["left_out"], strict=True):
        assert text.startswith(words_of)
    (warning,) = result["warnings"]  # type: ignore[misc]
    assert warning.startswith("n1: 2 outputs did not come: eval?tab.txt")
    assert "2 outputs did not come" in (folder / "report.md").read_text()
    assert set(json.loads((folder / "left-out/n1.json").read_text())) == {
        "eval?tab.txt",
        "final.bin",
    }

    assert main(["clean", RUN]) == 75
    said = capsys.readouterr().err
    assert "n1: 2 of its outputs did not come" in said
    assert f"orchestrate clean {RUN} --discard" in said
    node = tmp_path / "node/node/runs" / RUN
    assert list(node.rglob("eval\ttab.txt"))
    assert main(["clean", RUN, "--discard"]) == 0
    assert not folder.exists()
    assert not node.exists()
