"""Studies: figures that follow from their inputs, and inputs that cannot be."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.costs.study.study_checks import run_study, violations
from orchestrator.core.costs.study.study_model import Band, Standing, Strategy, Study, System
from orchestrator.core.costs.study.study_rows import (
    amdahl,
    rate_alone,
    study_row,
    study_rows,
)
from orchestrator.parsing.inputs.costs.study_file import load_study
from tests.architecture.source import ROOT
from tests.core.costs.machines import tables


@cache
def moe_scaling() -> Study:
    path = ROOT / "studies" / "moe-scaling.yaml"
    made = tables()
    return load_study(path.read_bytes(), path.name, path.stem, made.gpus, made.links)


def system(name: str) -> System:
    return next(each for each in moe_scaling().systems if each.name == name)


def test_it_studies_what_its_owner_asked_for() -> None:
    study = moe_scaling()
    assert [each.name for each in study.systems] == ["2xA100", "4xH100", "8xA100", "10xA6000"]
    assert [system.groups for system in study.systems] == [(2, 1), (2, 2), (4, 2), (5, 2)]
    assert [runtime.tokens_per_s for runtime in study.runtimes] == [100, 250]
    assert (study.mixture.experts, study.mixture.expert_bytes) == (128, 2e9)
    assert len(list(study_rows(study))) == 24


def test_one_gpu_makes_the_input_rate() -> None:
    study = moe_scaling()
    alone = replace(system("8xA100"), gpus=1, groups=(1, 1))
    for strategy in Strategy:
        for runtime in study.runtimes:
            row = study_row(study, alone, strategy, runtime)
            assert row.tokens_per_s == pytest.approx(runtime.tokens_per_s)
            assert row.communication_s == 0.0


@given(factor=st.floats(0.01, 100))
def test_cost_is_linear_in_price(factor: float) -> None:
    study, own = moe_scaling(), system("4xH100")
    dearer = replace(own, price_per_gpu_hour=own.price_per_gpu_hour * factor)
    for strategy in Strategy:
        before, after = (
            study_row(study, each, strategy, study.runtimes[0]) for each in (own, dearer)
        )
        assert after.usd_per_million == pytest.approx(factor * before.usd_per_million)
        assert after.yearly_usd == pytest.approx(factor * before.yearly_usd)
        assert after.tokens_per_s == before.tokens_per_s


@given(faster=st.floats(1.0, 1000.0))
def test_faster_links_never_make_fewer_tokens(faster: float) -> None:
    study, own = moe_scaling(), system("10xA6000")
    inside = own.fabric.inside
    better = inside._replace(bytes_s=inside.bytes_s * faster, hop_s=inside.hop_s / faster)
    quick = replace(own, fabric=own.fabric._replace(inside=better))
    for strategy in Strategy:
        slow, fast = (
            study_row(study, each, strategy, study.runtimes[0]).tokens_per_s
            for each in (own, quick)
        )
        assert fast >= slow * (1 - 1e-12)


@given(
    gpus=st.integers(1, 32), layers=st.integers(1, 200), skew=st.floats(0.0, 1.0),
    sequences=st.integers(1, 8),
)  # fmt: skip
def test_speed_up_is_at_most_amdahls(gpus: int, layers: int, skew: float, sequences: int) -> None:
    """With communication as the part that cannot be divided; and at most the number of GPUs."""
    study = moe_scaling()
    mixture = replace(study.mixture, layers=layers, skew=skew, sequences=sequences, draws=2)
    own = replace(system("8xA100"), gpus=gpus, groups=(gpus, 1))
    for runtime in study.runtimes:
        row = study_row(replace(study, mixture=mixture), own, Strategy.EXPERT, runtime)
        assert row.speedup <= row.amdahl * (1 + 1e-9)
        assert row.speedup <= gpus * (1 + 1e-9)
        assert row.imbalance >= 1 - 1e-9


@given(serial=st.floats(0, 1), gpus=st.integers(1, 1000))
def test_amdahls_law(serial: float, gpus: int) -> None:
    assert 1 - 1e-9 <= amdahl(serial, gpus) <= gpus + 1e-9
    assert amdahl(1.0, gpus) == pytest.approx(1.0)


def test_what_hardware_cannot_do_is_named() -> None:
    """Ten A6000 have no switch, cannot share 128 experts evenly, and have not the memory rate that
    the inputs ask for; a copy of 256 GB fits on no GPU.
    """
    found = {(each.system, each.id): each.text for each in violations(moe_scaling())}
    assert "18 times" in found["10xA6000", "no-switch"]
    assert ("8xA100", "no-switch") not in found
    assert "2 GPUs hold 25" in found["10xA6000", "uneven-experts"]
    assert "0.77 TB/s" in found["10xA6000", "memory-rate"]
    assert "264 GB" in found["8xA100", "capacity"]


def test_bands_are_checked_and_impossible_ones_explained() -> None:
    outcome = run_study(moe_scaling())
    found = {(c.band.system, c.band.runtime, c.band.figure): c for c in outcome.checks}
    assert found["8xA100", "baseline", "tokens_per_s"].standing is Standing.INSIDE
    too_fast = found["10xA6000", "prefetching", "tokens_per_s"]
    assert too_fast.standing is Standing.BELOW
    assert "at most 960 tok/s" in too_fast.reason
    assert "at most 2000 tok/s" in found["8xA100", "prefetching", "tokens_per_s"].reason
    assert "1.82 USD" in found["8xA100", "prefetching", "usd_per_million"].reason


def test_a_band_that_holds_is_inside() -> None:
    study = moe_scaling()
    row = study_row(study, system("2xA100"), Strategy.DATA, study.runtimes[0])
    edges = [(row.efficiency, row.efficiency), (2.0, 3.0), (0.0, 0.5)]
    bands = tuple(
        Band(system="2xA100", strategy=Strategy.DATA, runtime="baseline", figure="efficiency",
             low=low, high=high)
        for low, high in edges
    )  # fmt: skip
    outcome = run_study(replace(study, bands=bands))
    assert [c.standing for c in outcome.checks] == [
        Standing.INSIDE, Standing.BELOW, Standing.ABOVE,
    ]  # fmt: skip


def test_the_input_that_moves_most_comes_first() -> None:
    """A rate that is 20 % lower lowers the result by at most 20 %."""
    found = [s for s in run_study(moe_scaling()).sensitivities if s.system == "8xA100"]
    assert found[0].input == "tokens/s of one GPU"
    assert -0.2 <= found[0].lower < 0 < found[0].higher <= 0.2
    assert [each.reach for each in found] == sorted((e.reach for e in found), reverse=True)


def test_other_gpus_are_as_fast_as_their_memory() -> None:
    study = moe_scaling()
    rate = rate_alone(study, system("4xH100"), study.runtimes[0])
    assert rate == pytest.approx(100 * 3.35 / 2.0)
