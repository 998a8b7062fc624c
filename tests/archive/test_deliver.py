"""An archive that moves is whole at its new place, or it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.archive.deliver_archive import copy_archive, send_archive
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.model.inventory import NodeSpec, SshEndpoint, TransportKind
from tests.archive.test_archive import most_bytes_of_a_file

HERE = NodeSpec(name="n1", ssh=SshEndpoint(host="n1"), transport=TransportKind.LOCAL)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "here" / "a-1.tar.gz"
    path.parent.mkdir()
    path.write_bytes(bytes(range(256)) * 5000)
    return path


def test_a_folder_keeps_the_name_and_a_file_is_the_name(source: Path, tmp_path: Path) -> None:
    kept = copy_archive(source, tmp_path / "shelf" / "deep")
    named = copy_archive(source, tmp_path / "b.tar.gz")

    assert kept == tmp_path / "shelf" / "deep" / source.name
    assert named == tmp_path / "b.tar.gz"
    assert kept.read_bytes() == named.read_bytes() == source.read_bytes()


def test_a_full_disk_keeps_the_source_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    with most_bytes_of_a_file(1000), pytest.raises(OSError, match="too large"):
        copy_archive(source, tmp_path / "shelf")

    assert list((tmp_path / "shelf").iterdir()) == []
    assert source.exists()


@pytest.mark.processes
def test_a_node_gets_the_same_bytes(source: Path, tmp_path: Path) -> None:
    """Also below a folder whose name a shell would take for something else."""
    folder = f"{tmp_path}/a b;$(x)'"
    kept = send_archive(source, HERE, folder)
    named = send_archive(source, HERE, f"{tmp_path}/b.tar.gz")

    assert (kept, named) == (f"{folder}/{source.name}", f"{tmp_path}/b.tar.gz")
    assert Path(kept).read_bytes() == Path(named).read_bytes() == source.read_bytes()
    assert [path.name for path in Path(folder).iterdir()] == [source.name]


@pytest.mark.processes
def test_a_node_that_cannot_keep_it_says_why(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(PreflightError, match="did not reach n1:") as refused:
        send_archive(source, HERE, f"{tmp_path}/file/below")
    assert "file" in refused.value.why
    assert str(source) in refused.value.remedy
