"""What goes into a bundle comes out of it, verified; what physics says of the bundled playbook."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.archive.write_archive import Member
from orchestrator.adapters.catalog.catalog import Catalog
from orchestrator.adapters.migration.physical_bounds import physical_bounds
from orchestrator.adapters.migration.read_bundle import read_bundle
from orchestrator.adapters.migration.write_bundle import (
    BundleContent,
    CapturedStep,
    is_trace,
    machine_of,
    with_power,
    write_bundle,
)
from orchestrator.core.base.errors import UsageError
from orchestrator.core.migration.checklist import fill_checklist
from orchestrator.core.migration.evidence import Machine
from orchestrator.core.model.facts import Facts, Gpu
from orchestrator.core.verdict.energy import Energy, NodeEnergy
from tests.core.test_migration import ERROR, FAST, bundle, record

NODE = NodeEnergy(
    gpus=8, seconds=300.0, joules=1.0, integrated_joules=1.0, watts_mean=2100.0, watts_peak=2350.0
)
ENERGY = Energy(
    valid=True,
    reasons=(),
    gpus=16,
    seconds=300.0,
    nodes={"n1": NODE, "n2": replace(NODE, watts_mean=2200.0, watts_peak=2300.0)},
)


def captured() -> BundleContent:
    run = record("lab-inference", tokens_per_s=FAST, spread=ERROR)
    steps = (
        CapturedStep(name="inference", state="passed", run=run, earlier=(run, run)),
        CapturedStep(name="fp8", state="skipped", reason="needs GPUs of 130 GiB"),
    )
    trace = Member(f"runs/{run.run_id}/artifacts/n1/trace.json", b"{}")
    return BundleContent(
        playbook="b200",
        suite="migration",
        cluster="lab",
        nodes="n[1-2]",
        project="/project",
        made=1_800_000_000.0,
        steps=steps,
        machines=(Machine(node="n1", gpus=("H200",), driver="580"), Machine(node="n2")),
        members=(trace, Member("runs/other/trace.json", b"{}")),
        restore={"inventory.yaml": b"name: lab", "env/requirements.txt": b"torch"},
        packages={"n1.txt": b"torch==2.13.0\n"},
    )


def test_a_bundle_says_what_was_captured(tmp_path: Path) -> None:
    path = tmp_path / "old.tar.gz"
    write_bundle(path, captured())
    found, restored = read_bundle(path)

    assert (found.cluster, found.nodes, found.project) == ("lab", "n[1-2]", "/project")
    assert found.machines == captured().machines
    assert found.gpus is None, "those of n2 are not known"
    inference = found.steps["inference"]
    assert inference.runs == (captured().steps[0].run,)
    assert len(inference.earlier) == 2
    assert inference.traces == ("runs/lab-inference/artifacts/n1/trace.json",)
    assert found.figures["inference.tokens_per_s"] == FAST
    assert found.steps["fp8"].text == "skipped: needs GPUs of 130 GiB"
    assert restored == captured().restore


def test_a_record_of_another_run_is_no_evidence(tmp_path: Path) -> None:
    path = tmp_path / "old.tar.gz"
    (inference, fp8) = captured().steps
    stranger = replace(captured(), steps=(replace(inference, name="quality"), fp8))
    write_bundle(path, stranger)
    forged = Member("records/fp8.json", _record_of(path))
    write_bundle(path, replace(captured(), members=(forged,)))
    with pytest.raises(UsageError, match="not of the run that its manifest names"):
        read_bundle(path)


def _record_of(path: Path) -> bytes:
    from orchestrator.adapters.archive.read_archive import read_archive

    return read_archive(path, lambda name: name.startswith("records/")).files[
        "records/quality.json"
    ]


@pytest.mark.parametrize(
    "name,expected",
    [
        ("artifacts/n1/rank-0.nsys-rep", True),
        ("artifacts/n1/trace.json", True),
        ("captures/n1/rank0.pt.trace.json.gz", True),
        ("metrics.jsonl", False),
        ("artifacts/n1/trace.txt", False),
        ("trace/result.json", False),
    ],
)
def test_profiles_are_known_by_their_names(name: str, expected: bool) -> None:
    assert is_trace(name) is expected


def test_power_is_that_of_the_hungriest_node() -> None:
    figures = with_power(record("a-1"), ENERGY).figures
    assert (figures["node_watts_mean"].value, figures["node_watts_peak"].value) == (2200.0, 2350.0)
    unknown = replace(ENERGY, nodes={**ENERGY.nodes, "n3": replace(NODE, watts_mean=None)})
    assert "node_watts_mean" not in with_power(record("a-1"), unknown).figures
    for useless in (None, replace(ENERGY, valid=False)):
        assert with_power(record("a-1"), useless).figures == {}


def test_facts_that_were_assumed_tell_nothing_of_gpus() -> None:
    facts = Facts(node="n1", hostname="h", gpus=(Gpu(index=0, name="H200"),), driver="580")
    assert machine_of(facts).gpus == ("H200",)
    assert machine_of(replace(facts, assumed=True)).gpus is None


def test_physics_contradicts_all_that_the_bundled_playbook_expects() -> None:
    catalog = Catalog.from_environment(os.environ)
    playbook = catalog.read_playbook(catalog.find_playbook("b200"))
    metrics = [one.metric for one in playbook.expectations]
    bounds = physical_bounds(metrics, ("NVIDIA B200",) * 8)
    flags = fill_checklist(playbook, bundle("old"), bundle("new"), None, bounds).flags
    shares = [flag.what.partition(" of the ")[0] for flag in flags]
    assert shares == ["only 34%", "only 73%", "only 28%", "only 32%"]
    for gpus in (None, (), ("NVIDIA B200", "NVIDIA H200"), ("Someone's GPU",)):
        assert physical_bounds(metrics, gpus) == {}
