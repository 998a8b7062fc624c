"""The fused engine's Triton kernels agree with plain torch, bit for bit or within rounding."""

from __future__ import annotations

import math
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from finetune.fused import reference

pytestmark = pytest.mark.slow

EPS = 1e-6
KINDS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    """Triton's own interpreter runs them where there is no GPU (see tests/conftest.py)."""
    pytest.importorskip("triton", reason="hardware: no build of Triton for this machine")
    from finetune.fused import kernels

    return kernels


@pytest.fixture(params=KINDS, ids=["fp32", "bf16"])
def kind(request: pytest.FixtureRequest) -> torch.dtype:
    torch.manual_seed(5)
    found: torch.dtype = request.param
    return found


def wide(rows: int, width: int, kind: torch.dtype, spare: int = 3) -> Tensor:
    """Random values whose rows lie apart."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.randn(rows, width + spare, device=device).to(kind)[:, :width]


def same(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got, wanted, rtol=KINDS[got.dtype], atol=KINDS[got.dtype])


@pytest.mark.parametrize("past", [False, True])
def test_the_norm(kernels: ModuleType, kind: torch.dtype, past: bool) -> None:
    total, added, grad, residual = (wide(5, 37, kind) for _ in range(4))
    weight = wide(1, 37, kind)[0].contiguous()
    totals, outs = [total.clone(), total.clone()], [torch.zeros_like(total) for _ in range(2)]
    kept = [
        module.rms_norm(own, weight, EPS, out, added if past else None)
        for module, own, out in zip((kernels, reference), totals, outs, strict=True)
    ]
    same(outs[0], outs[1])
    same(totals[0], totals[1])
    assert torch.equal(totals[0], total) == (not past)
    same(kept[0].rstd.to(kind), kept[1].rstd.to(kind))
    for beside in (residual, None):
        kernels.rms_norm_backward(grad, kept[0], beside, outs[0])
        reference.rms_norm_backward(grad, kept[1], beside, outs[1])
        same(outs[0], outs[1])


def test_the_gated_product(kernels: ModuleType, kind: torch.dtype) -> None:
    gate_up, out, other = wide(4, 2 * 2050, kind), wide(4, 2050, kind), wide(4, 2050, kind)
    kernels.swiglu(gate_up, out)
    reference.swiglu(gate_up, other)
    same(out, other)
    grad = wide(4, 2050, kind)
    pairs = [(grad.clone(), gate_up.clone()) for _ in range(2)]
    kernels.swiglu_backward(*pairs[0])
    reference.swiglu_backward(*pairs[1])
    for got, wanted in zip(*pairs, strict=True):
        same(got, wanted)


def same_rounding(got: reference.Rows8, of: Tensor) -> None:
    """Of what was made in the same pass; spare columns are nobody's yet."""
    wanted = reference.quantise_rows(of)
    torch.testing.assert_close(got.scales, wanted.scales)
    values = got.values[:, -of.shape[1] :]
    same_values(values, wanted.values)
    assert (values.float().abs().amax(-1) == reference.LARGEST_E4M3).all()


def same_values(got: Tensor, wanted: Tensor) -> None:
    """Both in 8 bits."""
    values, exact = got.float(), wanted.float()
    # Triton's interpreter loses the carry where rounding reaches the next power of two.
    assert (values == exact).float().mean() > (0.9999 if got.device.type == "cuda" else 0.92)
    assert ((values - exact).abs() <= 0.5 * exact.abs() + 2**-6).all()


@pytest.mark.parametrize("width", [1, 40, 64, 4100])
def test_the_gated_product_that_rounds_what_it_makes(
    kernels: ModuleType, kind: torch.dtype, width: int
) -> None:
    """Rows in two powers of two, with and without columns left over."""
    gate_up, grad = wide(4, 2 * width, kind), wide(4, width, kind)
    outs = [torch.zeros_like(grad) for _ in range(2)]
    rows = kernels.swiglu_rounded(gate_up, outs[0], spare=16)
    reference.swiglu(gate_up, outs[1])
    same(outs[0], outs[1])
    same_rounding(rows, outs[0])
    pairs = [(grad.clone(), gate_up.clone()) for _ in range(2)]
    rows = kernels.swiglu_backward_rounded(*pairs[0], spare=32)
    reference.swiglu_backward(*pairs[1])
    for got, wanted in zip(*pairs, strict=True):
        same(got, wanted)
    same_rounding(rows, pairs[0][1])


def test_columns_before_rounded_rows(kernels: ModuleType, kind: torch.dtype) -> None:
    """More rows than a program has; in some of them what is added has the largest value."""
    count, width, rank = kernels.TALL + 3, kernels.PIECE + 5, 5
    x, thin = wide(count, width, kind), wide(count, rank, kind)
    thin[1] *= 100
    thin[-1] *= 100
    rows = kernels.quantise_rows(x, spare=16)
    least = rows.scales.clone()
    for factor in (0.25, 0.001, 4.0):
        kernels.extend_rows(rows, x, thin, factor, least)
        added = functional.pad(factor * thin.float(), (0, 16 - rank))
        wanted = reference.quantise_rows(torch.cat([added, x.float()], dim=1))
        torch.testing.assert_close(rows.scales, wanted.scales)
        same_values(rows.values, wanted.values)
        assert (rows.scales > least).sum() >= {0.25: 2, 0.001: 0, 4.0: count // 2}[factor]
        other = reference.quantise_rows(x, spare=16)
        reference.extend_rows(other, x, thin, factor)
        assert torch.equal(other.scales, wanted.scales)
        assert torch.equal(other.values.float(), wanted.values.float())
    # Rows of a matrix that lies the other way round.
    other_way = x.t().contiguous().t()
    kernels.extend_rows(rows, other_way, thin.t().contiguous().t(), 0.25)
    assert torch.equal(rows.scales, wanted.scales)


@pytest.mark.parametrize("past", [False, True])
def test_the_norm_that_rounds_what_it_makes(
    kernels: ModuleType, kind: torch.dtype, past: bool
) -> None:
    x, added, grad, residual = (wide(5, 37, kind) for _ in range(4))
    weight = wide(1, 37, kind)[0].contiguous()
    xs, outs = [x.clone(), x.clone()], [torch.zeros_like(x) for _ in range(2)]
    made = [
        module.rms_norm_rounded(own, weight, EPS, out, added if past else None, spare=16)
        for module, own, out in zip((kernels, reference), xs, outs, strict=True)
    ]
    same(outs[0], outs[1])
    same(xs[0], xs[1])
    assert torch.equal(xs[0], x) == (not past)
    same(made[0][0].rstd.to(kind), made[1][0].rstd.to(kind))
    same_rounding(made[0][1], outs[0])
    for module, (normed, _), out in zip((kernels, reference), made, outs, strict=True):
        same_rounding(module.rms_norm_backward_rounded(grad, normed, residual, out), out)
    same(outs[0], outs[1])


@pytest.mark.parametrize("depth", [16, 24])
@pytest.mark.parametrize("inverse", [False, True])
def test_the_rotation(kernels: ModuleType, kind: torch.dtype, inverse: bool, depth: int) -> None:
    """Also in place, and for heads of any even width; turned back it is what it was."""
    x, angles = wide(3, 5 * depth, kind), wide(3, depth, kind, 0)
    angles[:, depth // 2 :] = angles[:, : depth // 2]
    cos, sin = angles.cos(), angles.sin()
    out, other = torch.zeros_like(x), torch.zeros_like(x)
    kernels.rotate(x, cos, sin, inverse=inverse, out=out)
    reference.rotate(x, cos, sin, inverse=inverse, out=other)
    same(out, other)
    kernels.rotate(out, cos, sin, inverse=not inverse, out=out)
    same(out, x.contiguous())


def test_cross_entropy(kernels: ModuleType, kind: torch.dtype) -> None:
    """Over several blocks of a vocabulary, with logits far from zero."""
    width = kernels.AT_A_TIME + 77
    logits = wide(3, width, kind) * 8 + 20
    labels = torch.tensor([0, width - 1, 1234], device=logits.device)
    exact = logits.double().detach().requires_grad_()
    wanted = functional.cross_entropy(exact, labels, reduction="sum")
    (wanted * 0.25).backward()
    assert exact.grad is not None
    loss = kernels.cross_entropy_(logits, labels, 0.25)
    assert math.isclose(float(loss), float(wanted.detach()), rel_tol=1e-5)
    torch.testing.assert_close(logits.double(), exact.grad, rtol=0, atol=1e-3)


def test_the_gradient_of_the_cross_entropy_less_its_labels_part(
    kernels: ModuleType, kind: torch.dtype
) -> None:
    logits, labels = wide(3, 50, kind), torch.tensor([0, 49, 7])
    labels, wanted = labels.to(logits.device), logits.clone()
    for module, own in ((kernels, logits), (reference, wanted)):
        module.cross_entropy_(own, labels, 0.25, less_labels=False)
    same(logits, wanted)
    assert torch.allclose(logits.float().sum(1), torch.tensor(0.25), atol=1e-2)


@pytest.mark.parametrize("width", [40, 65_536 + 40])
def test_rounding_to_eight_bits(kernels: ModuleType, kind: torch.dtype, width: int) -> None:
    """Over one block and more, with a row of zeros."""
    x = wide(3, width, kind) * 100
    x[1] = 0
    (got, scales), (wanted, exact) = (m.quantise_rows(x) for m in (kernels, reference))
    torch.testing.assert_close(scales, exact)
    assert got.dtype is torch.float8_e4m3fn
    same = got.float() == wanted.float()
    # Triton's interpreter loses the carry where rounding reaches the next power of two.
    assert same.float().mean() > (0.9999 if x.device.type == "cuda" else 0.97)
    assert (got.float() - wanted.float()).abs().max() <= 0.5 * reference.LARGEST_E4M3
