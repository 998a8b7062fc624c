"""Causal attention in fp8 by cuDNN's own interface, for a trial: forward and backward in e4m3 with
a scale for each tensor (nvidia-cudnn-frontend; torch has no call of it). On Hopper what it makes
is in e4m3, too; the scales of that are chosen by a first pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LARGEST = 448.0
Tensors = tuple[Tensor, Tensor, Tensor]


class AttentionFp8:
    """Heads [rows x length, heads, depth] as rows of equal length. Raises what cuDNN raises where
    it has no kernel for them.
    """

    def __init__(self, heads: Tensors, grad: Tensor, rows: int, scale: float) -> None:
        import cudnn

        self._cudnn, self._scale = cudnn, scale
        self._source = [_by_rows(own, rows) for own in (*heads, grad)]
        self._eight = [torch.empty_like(t, dtype=torch.float8_e4m3fn) for t in self._source]
        self._descale = [torch.ones(1, 1, 1, 1, device="cuda") for _ in self._source]
        self.round()
        one = torch.ones(1, 1, 1, 1, device="cuda")
        # Probabilities are at most 1, and an output no larger than the largest value.
        self._one, self._up, self._down = one, one * LARGEST, one / LARGEST
        self._out = torch.empty_like(self._eight[0])
        self._of_out = self._descale[2]
        self._grads = [torch.empty_like(own) for own in self._eight[:3]]
        self._scales = [one.clone() for _ in range(4)]  # of dQ, dK, dV, dP
        self._largest = [torch.zeros_like(one) for _ in range(4)]
        shape = self._eight[0].shape[:3]
        self._stats = torch.empty(*shape, 1, dtype=torch.float32, device="cuda")
        self._forward = self._forward_graph()
        self.forward()
        self._backward = self._backward_graph()
        for _ in range(3):  # that of dP changes what the others are made of
            self.backward()
            for own, largest in zip(self._scales, self._largest, strict=True):
                own.copy_(LARGEST / largest.clamp(min=1e-20))
            self._of_p.copy_(1 / self._scales[3])

    def round(self) -> None:
        """All four operands."""
        for exact, eight, descale in zip(self._source, self._eight, self._descale, strict=True):
            _round(exact, eight, descale)

    def forward(self) -> None:
        graph, pack, room = self._forward
        graph.execute(pack, room)

    def backward(self) -> None:
        graph, pack, room = self._backward
        graph.execute(pack, room)

    def found(self) -> tuple[Tensor, ...]:
        """Output and gradients [rows x length, heads, depth]."""
        self.forward()
        self.backward()
        scales = (1 / self._of_out, *self._scales[:3])
        return tuple(
            (own.float() / scale).transpose(1, 2).flatten(0, 1)
            for own, scale in zip((self._out, *self._grads), scales, strict=True)
        )

    def _graph(self) -> Any:
        kinds = self._cudnn.data_type
        return self._cudnn.pygraph(
            io_data_type=kinds.FP8_E4M3,
            intermediate_data_type=kinds.FLOAT,
            compute_data_type=kinds.FLOAT,
        )

    def _eights(self, graph: Any, tensors: list[Tensor]) -> list[Any]:
        kind = self._cudnn.data_type.FP8_E4M3
        return [
            graph.tensor(name=f"t{n}", dim=list(t.shape), stride=list(t.stride()), data_type=kind)
            for n, t in enumerate(tensors)
        ]

    def _forward_graph(self) -> Any:
        graph, kinds = self._graph(), self._cudnn.data_type
        operands = self._eights(graph, self._eight[:3])
        scalars = [*self._descale[:3], self._down, self._up, 1 / self._of_out]
        numbers = [graph.tensor_like(own) for own in scalars]
        names = ("descale_q", "descale_k", "descale_v", "descale_s", "scale_s", "scale_o")
        out, stats, of_s, of_o = graph.sdpa_fp8(
            **dict(zip(("q", "k", "v"), operands, strict=True)),
            **dict(zip(names, numbers, strict=True)),
            is_inference=False, attn_scale=self._scale, use_causal_mask=True,
        )  # fmt: skip
        _given(out, self._out, kinds.FP8_E4M3)
        _given(stats, self._stats, kinds.FLOAT)
        amax = [torch.zeros_like(self._one) for _ in range(2)]
        for own, place in zip((of_s, of_o), amax, strict=True):
            _given(own, place, kinds.FLOAT)
        tensors = [*operands, *numbers, out, stats, of_s, of_o]
        places = [*self._eight[:3], *scalars, self._out, self._stats, *amax]
        return self._built(graph, tensors, places)

    def _backward_graph(self) -> Any:
        graph, kinds = self._graph(), self._cudnn.data_type
        operands = [*self._eight[:3], self._out, self._eight[3]]
        eights = self._eights(graph, operands)
        stats = graph.tensor_like(self._stats)
        of_q, of_k, of_v, of_p = self._scales
        self._of_p = 1 / of_p
        scalars = {
            "descale_q": self._descale[0], "descale_k": self._descale[1],
            "descale_v": self._descale[2], "descale_o": self._of_out,
            "descale_dO": self._descale[3], "descale_s": self._down, "descale_dP": self._of_p,
            "scale_s": self._up, "scale_dQ": of_q, "scale_dK": of_k, "scale_dV": of_v,
            "scale_dP": of_p,
        }  # fmt: skip
        numbers = {name: graph.tensor_like(own) for name, own in scalars.items()}
        *made, most_q, most_k, most_v, most_p = graph.sdpa_fp8_backward(
            **dict(zip(("q", "k", "v", "o", "dO"), eights, strict=True)),
            stats=stats, **numbers, attn_scale=self._scale, use_causal_mask=True,
        )  # fmt: skip
        for own, place in zip(made, self._grads, strict=True):
            _given(own, place, kinds.FP8_E4M3)
        most = (most_q, most_k, most_v, most_p)
        for own, place in zip(most, self._largest, strict=True):
            _given(own, place, kinds.FLOAT)
        tensors = [*eights, stats, *numbers.values(), *made, *most]
        places = [*operands, self._stats, *scalars.values(), *self._grads, *self._largest]
        return self._built(graph, tensors, places)

    def _built(self, graph: Any, tensors: list[Any], places: list[Tensor]) -> Any:
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([self._cudnn.heur_mode.A])
        graph.check_support()
        graph.build_plans()
        room = torch.empty(graph.get_workspace_size(), dtype=torch.uint8, device="cuda")
        return graph, dict(zip(tensors, places, strict=True)), room


def _by_rows(tensor: Tensor, rows: int) -> Tensor:
    found: Tensor = tensor.unflatten(0, (rows, -1)).transpose(1, 2)
    return found


def _round(exact: Tensor, eight: Tensor, descale: Tensor) -> None:
    descale.copy_(exact.abs().amax().float() / LARGEST)
    eight.copy_(exact.float() / descale)


def _given(tensor: Any, place: Tensor, kind: Any) -> None:
    tensor.set_output(True).set_dim(list(place.shape)).set_stride(list(place.stride()))
    tensor.set_data_type(kind)
