"""An inventory that was read before is what reading it again gives, and nobody else's."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orchestrator.adapters.cache import validated_files
from orchestrator.adapters.cache.inventories import Inventories
from orchestrator.adapters.catalog.bundled import bundled_root
from orchestrator.core.base.command import Secret
from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.inventory import Cluster
from orchestrator.parsing.inputs import inventory_file

TEXT = b"""\
name: lab
defaults: {key: ~/.ssh/id_lab, gpus: {count: 8, indices: [0, 3]}, env: {A: "1"}}
nodes: ["gpu[01-03]", {name: head, role: coordinator, price_per_hour: 2.5, python: {venv: /v}}]
groups: {all: "gpu[01-03]"}
expectations: [{metric: busbw, value: 442.28, unit: GB/s, source: the owner}]
"""
SECRET = b"name: lab\nnodes: [{name: a, env: {TOKEN: {secret: LAB_TOKEN}}}]\n"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that were read by the schema, in order."""
    seen: list[str] = []
    load = inventory_file.load_cluster

    def count(data: bytes, source: str, **options: object) -> Cluster:
        seen.append(source)
        return load(data, source, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(inventory_file, "load_cluster", count)
    return seen


def load(home: Path, data: bytes = TEXT, **changed: object) -> Cluster:
    options: dict[str, object] = {"folder": "/lab", "environ": {"HOME": "/home/me"}} | changed
    return Inventories(home).load(data, "lab.yaml", **options)  # type: ignore[arg-type]


def test_a_second_reading_is_the_first_one(tmp_path: Path, reads: list[str]) -> None:
    bundled = (path.read_bytes() for path in sorted(bundled_root().glob("clusters/*.yaml")))
    texts = [TEXT, *(text for text in bundled if b"secret:" not in text)]
    assert len(texts) > 3
    first = [load(tmp_path, text) for text in texts]
    assert len(reads) == len(texts)
    assert [load(tmp_path, text) for text in texts] == first
    assert len(reads) == len(texts)
    assert first[0].nodes[0].ssh.identity_file == "/home/me/.ssh/id_lab"


def test_whatever_decides_the_result_is_part_of_the_key(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tmp_path)
    other = load(tmp_path, environ={"HOME": "/home/you"})
    assert other.nodes[0].ssh.identity_file == "/home/you/.ssh/id_lab"
    load(tmp_path, folder="/elsewhere")
    load(tmp_path, TEXT + b"\n# a comment\n")
    monkeypatch.setattr(validated_files, "code_stamp", lambda _: [["changed", 1, 2]])
    load(tmp_path)
    assert len(reads) == 5


def test_a_secret_is_read_anew_and_written_nowhere(tmp_path: Path, reads: list[str]) -> None:
    for value in ("hunter2", "swordfish"):
        cluster = load(tmp_path, SECRET, environ={"LAB_TOKEN": value})
        assert cluster.nodes[0].env["TOKEN"] == Secret(value)
    assert len(reads) == 2
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_faults_are_found_each_time(tmp_path: Path, reads: list[str]) -> None:
    for _ in range(2):
        with pytest.raises(UsageError, match="nodez"):
            load(tmp_path, b"name: lab\nnodez: [a]\nnodes: [a]\n")
    assert len(reads) == 2


@pytest.mark.parametrize("damage", ["cut", "other", "stranger", "link", "open-home"])
def test_what_is_not_ours_is_not_used(tmp_path: Path, reads: list[str], damage: str) -> None:
    home = tmp_path / "home"
    right = load(home)
    (entry,) = home.glob("*.json")
    forged = json.loads(entry.read_text())
    forged["value"]["nodes"][0]["ssh"]["host"] = "elsewhere"
    if damage == "cut":
        entry.write_text(json.dumps(forged)[:-20])
    elif damage == "other":
        entry.write_text(json.dumps(forged | {"key": {}}))
    elif damage == "stranger":
        if os.geteuid() != 0:
            pytest.skip("needs root: a file of another user")
        entry.write_text(json.dumps(forged))
        os.chown(entry, 12345, 12345)
    elif damage == "link":
        (tmp_path / "forged").write_text(json.dumps(forged))
        entry.unlink()
        entry.symlink_to(tmp_path / "forged")
    else:
        entry.unlink()
        tmp_path.chmod(0o777)
    assert load(home) == right
    assert len(reads) == 2
