"""A step's time, from the kernels that ran in it."""

from __future__ import annotations

import pytest
from bench_lib.finetuning.timeline import OTHER, PRODUCTS, Kernel, class_of, covered, timeline
from hypothesis import given
from hypothesis import strategies as st

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), min_size=1, max_size=12)


def test_overlapping_kernels_count_once_as_time_and_each_in_its_class() -> None:
    found = timeline(
        [
            Kernel("nvjet_tst_128x256", 0e6, 4e6),
            Kernel("ncclDevKernel_AllReduce_Sum_f32", 3e6, 6e6),
            Kernel("_rms_norm", 8e6, 9e6),
            Kernel("cutlass_80_wmma_tensorop", 9e6, 10e6),
        ]
    )
    assert (found.span, found.busy, found.exposed) == (10, 8, 2)
    assert found.by_class == {PRODUCTS: 5, "communication": 3, OTHER: 1}


@given(SPANS)
def test_covered_time_is_that_of_the_ticks_under_a_kernel(spans: list[tuple[int, int]]) -> None:
    kernels = [Kernel("k", start, start + length) for start, length in spans]
    ticks = {tick for start, length in spans for tick in range(start, start + length)}
    assert covered(kernels) == len(ticks)


@pytest.mark.parametrize(
    "name, kind",
    [
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16", "attention"),
        ("void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<>>", PRODUCTS),
        ("_cross_entropy", "cross entropy"),
        ("_quantise_rows", "rounding to fp8"),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>", "optimiser"),
        ("Memcpy DtoD (Device -> Device)", "copies"),
        ("_swiglu_backward", OTHER),
    ],
)
def test_names_of_kernels_tell_their_class(name: str, kind: str) -> None:
    assert class_of(name) == kind


def test_a_step_in_which_nothing_ran_is_no_figure() -> None:
    with pytest.raises(ValueError, match="no kernel"):
        timeline([])
