"""Coefficients that made the points are found again, with errors that say how well."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from orchestrator.core.costs.calibration import Observation, calibrate, covered
from orchestrator.core.costs.checking import check_points, scores
from orchestrator.core.costs.estimate import Family, Term, weigh
from orchestrator.core.costs.fitting import (
    MeasuredPoint,
    fit,
    leave_one_out,
    solved,
)
from orchestrator.core.costs.predict import predict_training
from orchestrator.core.costs.tables import Prior, model_of, uninformed
from orchestrator.core.costs.training_step import TrainingJob
from tests.core.costs.machines import assumed_model, fabric, shape, tables

PRIORS = (Prior("a", 1.0, 3.0), Prior("b", 1.0, 3.0))
TRUTH = (math.log(2.0), math.log(0.5))


def points(noise: float, count: int = 20) -> list[MeasuredPoint]:
    """Of two terms in different proportions; ``noise``: deviation of the logarithm."""
    source = random.Random(5)
    made = []
    for number in range(count):
        terms = (Term("a", 1.0 + number), Term("b", 1.0 + (7 * number) % count))
        true = weigh(("a", "b"), TRUTH, terms).value
        made.append(MeasuredPoint(terms, true * math.exp(source.gauss(0, noise))))
    return made


def test_coefficients_are_found_again() -> None:
    """Exactly without noise; with it within what their uncertainty says."""
    exact = fit(PRIORS, points(0.0), 0.05)
    assert exact.coefficient("a") == pytest.approx(2.0, rel=0.01)
    assert exact.coefficient("b") == pytest.approx(0.5, rel=0.01)
    noisy = fit(PRIORS, points(0.03), 0.05)
    for place in range(2):
        off = abs(noisy.logs[place] - TRUTH[place])
        assert off < 4 * math.sqrt(noisy.covariance[place][place])
    assert noisy.spread == pytest.approx(0.03, rel=0.5)


def test_a_term_that_no_point_has_keeps_its_prior() -> None:
    priors = (*PRIORS, Prior("c", 7.0, 2.0))
    found = fit(priors, points(0.01), 0.05)
    assert found.coefficient("c") == pytest.approx(7.0)
    assert found.covariance[2][2] == pytest.approx(math.log(2.0) ** 2)


def test_what_varies_between_machines_stays_as_uncertain() -> None:
    """However many points of one machine there are; what is most likely does not move."""
    alike = fit(PRIORS, points(0.01), 0.05)
    varied = fit((PRIORS[0], Prior("b", 1.0, 3.0, 1.6)), points(0.01), 0.05)
    assert varied.logs == pytest.approx(alike.logs)
    added = varied.covariance[1][1] - alike.covariance[1][1]
    assert added == pytest.approx(math.log(1.6) ** 2)
    assert varied.covariance[0][0] == alike.covariance[0][0]


def test_intervals_cover_what_they_promise() -> None:
    """90 % of points that the fit did not see, here at least 80 % of 60."""
    found = list(leave_one_out(PRIORS, points(0.05, 60), 0.05))
    assert len(found) == 60
    assert sum(each.inside for each in found) >= 48
    assert sum(abs(each.error) for each in found) / 60 < 0.08


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        fit(PRIORS, [], 0.05)
    assert uninformed(PRIORS, 0.1).points == 0


def test_linear_systems_are_solved() -> None:
    """Also where the first pivot is zero."""
    assert solved([[0.0, 2.0], [3.0, 1.0]], [4.0, 5.0]) == pytest.approx([1.0, 2.0])


def observations(count: int) -> list[Observation]:
    """Fine-tunes on H200s whose real coefficients differ from those that are assumed."""
    truth = assumed_model("h200")
    step = truth.families["training.step"]
    slower: Family = step._replace(logs=tuple(log + 0.15 for log in step.logs))
    truth = truth._replace(families={**truth.families, "training.step": slower})
    made = []
    for number in range(count):
        job = TrainingJob(
            shape=shape(("qwen2-7b", "qwen2-1.5b", "qwen2-0.5b")[number % 3]),
            rows=1 + number % 4,
            sequence=1024 * (1 + number % 5),
            gpus=(1, 1, 2, 4)[number % 4],
        )
        found = predict_training(job, fabric("h200"), truth).figures
        figures = {
            "step_s": found["step_time_p50"].value,
            "tokens_per_s": found["tokens_per_s"].value,
            "peak_bytes": found["peak_memory_bytes"].value,
        }
        made.append(
            Observation(
                label=f"run {number}",
                gpu="h200",
                job=job,
                fabric=fabric("h200"),
                figures=figures,
                held_out=number % 3 == 2,
            )
        )
    return made


def test_a_fit_predicts_what_it_never_saw() -> None:
    """Held-out points within 2 %, where the assumed coefficients are 13 % off; what was not
    measured is named.
    """
    made, assumed = observations(18), tables().assumed
    device = tables().gpus["h200"].device
    fitted = calibrate(made, assumed, device, made="2026-01-01", source="test")
    held = [each for each in made if each.held_out]
    fitted_model = model_of(device, assumed, fitted)
    after = {score.figure: score for score in scores(list(check_points(held, fitted_model)))}
    assumed_scores = scores(list(check_points(held, assumed_model("h200"))))
    before = {score.figure: score for score in assumed_scores}
    assert after["step_s"].points == 6
    assert after["step_s"].mape < 0.02 < before["step_s"].mape
    assert after["step_s"].inside == 1.0
    assert after["tokens_per_s"].mape < 0.02
    roofline = after["step_s"].roofline_mape
    assert roofline is not None
    assert roofline > 0.2
    assert fitted.quality["training.step"].points == 12
    assert any(line.startswith("decode.step: 0 points") for line in fitted.missing)
    assert "training.power" not in fitted.families


def test_held_out_points_are_not_looked_at() -> None:
    made, assumed = observations(12), tables().assumed
    device = tables().gpus["h200"].device
    spoilt = [
        replace(each, figures={**each.figures, "step_s": 99.0}) if each.held_out else each
        for each in made
    ]
    one, other = (calibrate(each, assumed, device, made="d", source="s") for each in (made, spoilt))
    assert one == other


def test_coverage_is_what_was_measured() -> None:
    made = observations(8)
    found = covered(made, "training")
    assert found["GPUs"] == (1, 4)
    assert found["hidden width"] == (896, 3584)
    assert covered(made, "inference") == {}
