"""Products of frozen matrices in 8 bits: the multiplier's own call, and how far off it is.

Each value of an operand is off by 2^-4 of itself at most, so a sum of k products of two operands is
off by (2 x 2^-4 + 2^-8) of the sum of their absolute values at most, and by far less as a whole.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from finetune.fused import reference
from finetune.fused.fp8 import FusedProjectionFp8, HeadFp8, fitted_rows
from finetune.fused.fused_projection import FusedProjection, Part
from finetune.fused.head import Head, linear_cross_entropy

pytestmark = pytest.mark.slow

WORST = 2 * 2**-4 + 2**-8
USUAL = 0.06  # of the norm: the root of the mean square of both roundings is 0.04
ROUNDED = 2**-8  # of a bf16 value, at each of three writes
WIDTH, OUTS, RANK, TOKENS = 64, (48, 16), 4, 9


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def kind(request: pytest.FixtureRequest) -> torch.dtype:
    torch.manual_seed(3)
    found: torch.dtype = request.param
    return found


def parts(kind: torch.dtype) -> list[Part]:
    return [
        Part(
            weight=torch.randn(out, WIDTH).to(kind),
            bias=torch.randn(out).to(kind),
            a=torch.nn.Parameter(torch.randn(RANK, WIDTH) / 8),
            b=torch.nn.Parameter(torch.randn(out, RANK) / 8),
            scale=2.0,
        )
        for out in OUTS
    ]


def close(got: Tensor, wanted: Tensor, worst: Tensor) -> None:
    """`worst` [T, n]: the sums of absolute values of the rounded products alone."""
    off = (got.float() - wanted).abs()
    assert (off <= WORST * worst + 3 * ROUNDED * (wanted.abs() + worst)).all()
    assert off.norm() < USUAL * wanted.norm()
    assert off.norm() > 0.001 * wanted.norm()  # it was rounded


def test_both_ways_are_within_the_rounding_of_their_operands(kind: torch.dtype) -> None:
    """With rows and channels of very different sizes."""
    own = parts(kind)
    joined = FusedProjectionFp8(reference, own)
    x = (torch.randn(TOKENS, WIDTH) * torch.logspace(-2, 2, TOKENS)[:, None]).to(kind)
    weight = torch.cat([part.weight for part in own]).float()
    adapter = torch.cat([part.scale * part.b @ part.a for part in own]).detach()
    bias = torch.cat([part.bias for part in own if part.bias is not None]).float()
    out = joined.room_for_output(TOKENS)
    joined.forward(x, out)
    wanted = x.float() @ (weight + adapter).t() + bias
    close(out, wanted, x.float().abs() @ (weight.abs() + adapter.abs()).t() + bias.abs())
    grad = torch.randn(TOKENS, sum(OUTS)).to(kind)
    back = joined.room_for_input(TOKENS)
    joined.input_gradient(grad, back)
    close(back, grad.float() @ (weight + adapter), grad.float().abs() @ (weight + adapter).abs())


def test_the_multiplier_agrees_with_the_exact_product_of_the_rounded_operands() -> None:
    """torch's own call runs here, too: layouts and scales are as it wants them."""
    torch.manual_seed(4)
    exact, own = parts(torch.float32), parts(torch.bfloat16)
    for one, other in zip(exact, own, strict=True):
        one.weight.copy_(other.weight)
        torch.nn.init.zeros_(one.b)
        torch.nn.init.zeros_(other.b)
    x = torch.randn(TOKENS, WIDTH).bfloat16()
    outs = []
    for ours, kind in ((exact, torch.float32), (own, torch.bfloat16)):
        joined = FusedProjectionFp8(
            reference, [Part(p.weight, None, p.a, p.b, p.scale) for p in ours]
        )
        outs.append(joined.room_for_output(TOKENS))
        joined.forward(x.to(kind), outs[-1])
    torch.testing.assert_close(outs[1].float(), outs[0], rtol=2 * ROUNDED, atol=1e-4)


def test_a_frozen_matrix_loses_less_than_by_its_largest_values(kind: torch.dtype) -> None:
    """In no row more, and in all some hundredths less; a row of zeros stays one."""
    matrix = torch.randn(96, 512).mul_(torch.logspace(-3, 3, 96)[:, None]).to(kind)
    matrix[7] = 0.0
    lost = []
    for rows in (fitted_rows(matrix, 5), reference.quantise_rows(matrix, spare=5)):
        assert rows.values.shape == (96, 517)
        back = rows.behind(5).values.float() * rows.scales[:, None]
        lost.append((back - matrix.float()).norm(dim=-1))
    fitted, plain = lost
    assert (fitted <= plain).all()
    assert fitted[7] == 0.0
    own = matrix.float().norm(dim=-1).clamp(min=1e-9)
    assert (fitted / own).mean() < 0.97 * (plain / own).mean()
    torch.testing.assert_close(
        fitted_rows(matrix.t().contiguous().t()).values.float(), fitted_rows(matrix).values.float()
    )


def test_gradients_of_the_adapter_are_those_of_the_exact_engine(kind: torch.dtype) -> None:
    """They are made of inputs and gradients that nobody rounded to 8 bits."""
    own = parts(kind)
    x, grad = torch.randn(TOKENS, WIDTH).to(kind), torch.randn(TOKENS, sum(OUTS)).to(kind)
    found: list[list[Tensor]] = []
    for joined in (FusedProjection(own), FusedProjectionFp8(reference, own)):
        for part in own:
            part.a.grad, part.b.grad = torch.zeros_like(part.a), torch.zeros_like(part.b)
        inputs, outputs = joined.room_for_input(TOKENS), joined.room_for_output(TOKENS)
        inputs[:, :WIDTH] = x
        h = joined.forward(inputs, torch.empty_like(outputs[:, : sum(OUTS)]))
        outputs[:, : sum(OUTS)] = grad
        thin = joined.input_gradient(outputs, None)
        joined.add_adapter_gradients(outputs, thin, inputs[:, :WIDTH], h)
        found.append([g for part in own for g in (part.a.grad, part.b.grad) if g is not None])
    for got, wanted in zip(*found, strict=True):
        assert wanted.norm() > 0
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)


def test_the_output_layer_loses_no_more_than_its_operands_rounding(kind: torch.dtype) -> None:
    """Of a loss that most tokens are unsure of, and one is sure of."""
    weight, labels = torch.randn(48, WIDTH).to(kind), torch.arange(TOKENS)
    hidden = (torch.randn(TOKENS, WIDTH) / 8).to(kind)
    hidden[0] = weight[0]
    found = []
    for head in (Head(weight), HeadFp8(reference, weight)):
        own = hidden.clone()
        loss = linear_cross_entropy(reference, own, head, labels, 0.5, grad=True)
        found.append((loss, own.float()))
    (wanted, exact), (loss, grad) = found
    assert 0 < abs(float(loss / wanted) - 1) < 0.01
    assert (grad - exact).norm() < USUAL * exact.norm()
