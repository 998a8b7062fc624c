"""Energy in a measured window: by the counter, checked by the power, never 0 for not known."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrate_kit._energy import (
    COUNTER_UPDATE_S,
    MAX_DISAGREEMENT,
    MAX_GAP_S,
    GpuEnergy,
    GpuMeter,
    Reading,
)
from orchestrate_kit._nvml import Nvml, NvmlError, find_gpus, shown_names
from orchestrate_kit._windows import NodeEnergy, Sampler, no_gpu_reason
from orchestrator.core.run.kit_reports import EnergyReported
from orchestrator.parsing.replies.kit_records import parse_report
from tests.fixtures.nvml import build_driver
from tests.time_limits import communicate
from tests.workloads.conftest import WORKLOADS

SAMPLES = st.lists(st.tuples(st.floats(0.5, 2.5), st.floats(20.0, 1000.0)), min_size=4, max_size=12)


def measured(*parts: list[Reading]) -> GpuEnergy:
    meter = GpuMeter("GPU-0")
    for part in parts:
        for reading in part:
            meter.add(reading)
        meter.cut()
    return meter.energy()


def power_of(samples: list[tuple[float, float]], ratio: float = 1.0) -> list[Reading]:
    """Seconds until a reading and the watts until then, with a counter that is exact."""
    t = joules = 0.0
    readings = [Reading(0.0, 0, samples[0][1] * ratio)]
    for (seconds, watts), (_, after) in pairwise([*samples, samples[-1]]):
        t, joules = t + seconds, joules + seconds * (watts + after) / 2
        readings.append(Reading(t, round(joules * 1e3), after * ratio))
    return readings


@given(SAMPLES)
def test_the_energy_is_the_counters_difference_where_power_agrees(
    samples: list[tuple[float, float]],
) -> None:
    readings = power_of(samples)
    energy = measured(readings)
    assert energy.joules == (readings[-1].millijoules or 0) / 1e3
    assert energy.integrated == pytest.approx(energy.joules, rel=1e-3)
    assert energy.problems == ()


@given(
    SAMPLES,
    st.one_of(st.floats(0.5, 1 - 1.1 * MAX_DISAGREEMENT), st.floats(1 + 1.1 * MAX_DISAGREEMENT, 2)),
)
def test_power_that_disagrees_is_said_with_both_figures(
    samples: list[tuple[float, float]], ratio: float
) -> None:
    energy = measured(power_of(samples, ratio))
    (problem,) = energy.problems
    assert "5 % apart" in problem
    assert f"{energy.joules:.6g} J" in problem
    assert f"{energy.integrated:.6g} J" in problem


@given(st.lists(SAMPLES, max_size=4))
def test_what_lies_between_parts_is_not_counted(parts: list[list[tuple[float, float]]]) -> None:
    """Whatever the GPU used in the meantime."""
    alone = [measured(power_of(part)).joules for part in parts]
    later = [
        [
            Reading(r.t + 1e6 * index, (r.millijoules or 0) + 10**12 * index, r.watts)
            for r in power_of(part)
        ]
        for index, part in enumerate(parts)
    ]
    if parts:
        assert measured(*later).joules == pytest.approx(sum(filter(None, alone)))
    else:
        assert measured() == GpuEnergy("GPU-0", None, None, ("the measured window was never open",))


def steady(seconds: float, **changed: Any) -> list[Reading]:
    """300 W, ten readings a second."""
    count = math.ceil(seconds * 10)
    return [Reading(i / 10, i * 30_000, 300.0)._replace(**changed) for i in range(count + 1)]


def test_a_gap_a_reset_and_a_lost_gpu_are_reasons() -> None:
    readings = steady(20)
    assert measured(readings) == GpuEnergy("GPU-0", 600.0 * 10, pytest.approx(6000.0), ())
    few = [*readings[:50], *readings[50 + 10 * 4 :]]
    assert measured(few).problems == (f"no power reading for 4.1 s (at most {MAX_GAP_S:g} s)",)
    reset = [r if i < 100 else r._replace(millijoules=i) for i, r in enumerate(readings)]
    assert measured(reset).joules is None
    assert measured(reset).problems == ("the energy counter was reset",)
    lost = Reading(20.1, None, None, "NVML: GPU is lost")
    assert measured([*readings, lost]).joules is None
    assert measured([*readings, lost]).problems == ("NVML: GPU is lost",)


def test_without_power_or_with_a_counter_that_stands_still_nothing_is_certain() -> None:
    blind = measured(steady(20, watts=None))
    assert blind.joules == 6000.0
    assert blind.problems == (
        "no power reading for 20.0 s (at most 3 s)",
        "no power readings to check the energy counter with",
    )
    still = measured(steady(20, millijoules=7))
    assert (still.joules, still.problems) == (None, ("the energy counter did not move",))


@given(st.floats(0.01, 1.9), st.integers(1, 5))
def test_parts_too_short_for_the_counter_are_refused(seconds: float, count: int) -> None:
    """One update that is missed would be more than the figure may be wrong by."""
    part = [Reading(0.0, 0, 300.0), Reading(seconds, round(seconds * 3e5), 300.0)]
    (problem,) = measured(*[part] * count).problems
    assert f"too short for a counter that moves every {COUNTER_UPDATE_S:g} s" in problem


def test_a_nodes_energy_needs_each_of_its_gpus() -> None:
    known, unknown = GpuEnergy("GPU-0", 10.0, 10.0, ()), GpuEnergy("GPU-1", None, 9.0, ("lost",))
    both = NodeEnergy([known, unknown], 2.0, 9.0, [])
    assert (both.joules, both.watts, both.valid) == (None, None, False)
    assert both.problems == ["GPU-1: lost"]
    alone = NodeEnergy([known], 2.0, 9.0, [])
    assert (alone.joules, alone.watts, alone.valid) == (10.0, 5.0, True)
    assert NodeEnergy([], 2.0, None, []).joules is None


# ---- the driver ---------------------------------------------------------------------------------


def test_cuda_decides_which_gpus_are_the_jobs() -> None:
    assert shown_names("2, 0,-1,3") == ["2", "0"]
    assert shown_names("") == []
    assert no_gpu_reason("cuda:0", {"CUDA_VISIBLE_DEVICES": ""}) == "no GPU is visible to the job"
    assert no_gpu_reason("cpu", {}) == "the job computes on a CPU"
    assert no_gpu_reason("auto", {}) == ""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_driver(tmp_path_factory.mktemp("driver"))


def run_program(driver: Path, tmp_path: Path, code: str, **variables: str) -> list[dict[str, Any]]:
    """What a script reports that the driver's library is there for."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={
            "LD_LIBRARY_PATH": str(driver),
            "PYTHONPATH": str(WORKLOADS),
            "ORCHESTRATE_REPORT_DIR": str(tmp_path),
            **variables,
        },
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = communicate(process, 60)
    assert process.returncode == 0, out + err
    lines = (tmp_path / "rank-0.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


MEASURE = """
import time, orchestrate_kit as kit
with kit.measured_window() as window:
    window.count(requests=2, output_tokens=30)
    time.sleep({seconds})
    window.pause()
    window.count(requests=5)
    time.sleep(0.3)
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    "variables, problem",
    [
        ({"FAKE_GPUS": "2"}, ""),
        # A counter that moves ten times a second may miss 0.2 s of the window's 0.5 s.
        ({"FAKE_RATIO": "2"}, "more than 5 % apart"),
        ({"FAKE_COUNTER": "none"}, "nvmlDeviceGetTotalEnergyConsumption: Not Supported"),
        ({"FAKE_COUNTER": "still"}, "the energy counter did not move"),
        ({"FAKE_GPUS": "1", "CUDA_VISIBLE_DEVICES": "3"}, "NVML knows no GPU 3"),
    ],
)
def test_a_script_reports_what_the_driver_counts(
    driver: Path, tmp_path: Path, variables: dict[str, str], problem: str
) -> None:
    code = MEASURE.format(seconds=2.5 if not problem else 0.5)
    *_, last = run_program(driver, tmp_path, code, **variables)
    event = parse_report("n1", 0, json.dumps(last).encode(), 0)
    assert isinstance(event, EnergyReported)
    assert event.final
    assert event.asked
    assert event.work == {"requests": 2.0, "output_tokens": 30.0}
    if problem:
        assert any(problem in said for said in event.problems)
        return
    assert event.problems == ()
    assert event.peak_watts == 250.0 + 300.0
    # The counter moves ten times a second, and sleep may take longer.
    for gpu, watts in zip(event.gpus, (250.0, 300.0), strict=True):
        assert gpu.joules == pytest.approx(watts * event.seconds, abs=0.21 * watts)


@pytest.mark.processes
def test_nvidias_own_bindings_read_the_same_of_that_driver(driver: Path, tmp_path: Path) -> None:
    """pynvml as the measure for structures and numbers; the counter stands still for this."""
    pytest.importorskip("pynvml")
    code = """
import json, os, pynvml
from orchestrate_kit._nvml import Nvml, find_gpus
nvml = Nvml()
(uuid, device), = find_gpus(nvml, "1")
mine = nvml.read(device)
pynvml.nvmlInit()
theirs = pynvml.nvmlDeviceGetHandleByIndex(1)
(power,) = pynvml.nvmlDeviceGetFieldValues(theirs, [pynvml.NVML_FI_DEV_POWER_INSTANT])
with open(os.environ["ORCHESTRATE_REPORT_DIR"] + "/rank-0.jsonl", "w") as file:
    ours = [uuid, mine.millijoules, mine.watts]
    json.dump({"ours": ours, "theirs": [
        pynvml.nvmlDeviceGetUUID(theirs), pynvml.nvmlDeviceGetTotalEnergyConsumption(theirs),
        power.value.uiVal / 1e3]}, file)
"""
    import pynvml

    variables = {"FAKE_GPUS": "2", "FAKE_COUNTER": "still", "FAKE_WATTS": "123"}
    site = str(Path(pynvml.__file__).parent)
    variables["PYTHONPATH"] = f"{WORKLOADS}:{site}"
    (found,) = run_program(driver, tmp_path, code, **variables)
    assert found["ours"] == found["theirs"]
    assert found["ours"][2] == 173.0


def test_without_a_driver_the_reason_is_the_loaders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrate_kit._nvml.LIBRARY", "libnot-there.so.1")
    with pytest.raises(NvmlError, match="no NVIDIA driver: libnot-there"):
        Nvml()


class OneGpu(Nvml):
    """A driver that knows the GPU ``GPU-1`` alone."""

    def __init__(self) -> None:
        pass

    def count(self) -> int:
        return 1

    def by_index(self, index: int) -> tuple[str, Any]:
        return f"GPU-{index + 1}", index


def test_gpus_are_named_by_number_or_the_beginning_of_a_uuid() -> None:
    one = [("GPU-1", 0)]
    assert (
        find_gpus(OneGpu(), None) == find_gpus(OneGpu(), "0") == find_gpus(OneGpu(), "GPU-1") == one
    )
    for wrong, why in (("1", "no GPU 1"), ("MIG-x", "only whole GPUs"), ("GPU-2", "no GPU GPU-2")):
        with pytest.raises(NvmlError, match=why):
            find_gpus(OneGpu(), wrong)


def test_a_driver_that_does_not_answer_costs_the_figure_once() -> None:
    """And not the job: the second order returns at once, though nothing has changed."""
    answers = threading.Event()

    def read() -> Reading:
        answers.wait(60)
        return Reading(0.0, 0, 1.0)

    sampler = Sampler(lambda: [("GPU-0", read)], patience_s=1.0)
    sampler.order("open")
    began = time.monotonic()
    sampler.order("close")
    assert time.monotonic() - began < 1.0
    assert sampler.energy(1.0).problems[0] == "NVML did not answer for 1 s"
    assert not sampler.energy(1.0).valid
    answers.set()


# ---- what the coordinator takes ----------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"seconds": "1", "window": 0},
        {"seconds": 1, "window": -1},
        {"seconds": -1, "window": 0},
        {"seconds": 1, "window": 0, "gpus": {"gpu": 1}},
        {"seconds": 1, "window": 0, "gpus": [1]},
    ],
)
def test_a_report_that_makes_no_sense_is_described(record: dict[str, Any]) -> None:
    line = json.dumps({"type": "energy", **record}).encode()
    assert "energy without" in str(parse_report("n1", 3, line, 0))


def test_what_a_report_holds_beyond_its_meaning_is_left_out() -> None:
    record = {
        "type": "energy", "seconds": 1, "window": 0, "peak_watts": -4, "problems": "no list",
        "gpus": [{"gpu": "a\nb", "joules": -1}] * 100,
        "work": {"tokens": 5, "x": 1, "requests": -1},
    }  # fmt: skip
    event = parse_report("n1", 3, json.dumps(record).encode(), 0)
    assert isinstance(event, EnergyReported)
    assert (len(event.gpus), event.gpus[0].gpu, event.gpus[0].joules) == (64, "a?b", None)
    assert (event.peak_watts, event.work) == (None, {"tokens": 5.0})
    assert event.problems == ("problems that are no list",)
