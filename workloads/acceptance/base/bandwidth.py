"""How bytes and floating-point operations are counted: nccl-tests', STREAM's and the usual rules.

GB is 1e9 bytes, TFLOPS is 1e12 operations a second.
"""

from __future__ import annotations

from collections.abc import Iterator

ALL_REDUCE = "all-reduce"
ALL_GATHER = "all-gather"
REDUCE_SCATTER = "reduce-scatter"
ALL_TO_ALL = "all-to-all"
COLLECTIVES = (ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, ALL_TO_ALL)

# Arrays that a kernel reads plus those it writes: what the memory moves for each element.
STREAM_ARRAYS = {"copy": 2, "scale": 2, "add": 3, "triad": 3}


def bus_factor(collective: str, ranks: int) -> float:
    """What nccl-tests multiplies size by time with to get at the traffic of one link."""
    share = (ranks - 1) / ranks
    return 2 * share if collective == ALL_REDUCE else share


def bus_bandwidth(collective: str, ranks: int, size: int, seconds: float) -> float:
    """GB/s; ``size`` in bytes is the larger of a rank's input and output, as in nccl-tests."""
    return size / seconds * bus_factor(collective, ranks) / 1e9


def product_tflops(shape: tuple[int, int, int], seconds: float) -> float:
    """Of a matrix product m x n x k: a multiplication and an addition for each of m n k."""
    m, n, k = shape
    return 2.0 * m * n * k / seconds / 1e12


def stream_gigabytes(kernel: str, array_bytes: int, seconds: float) -> float:
    """GB/s of a STREAM kernel: all that it reads and all that it writes."""
    return STREAM_ARRAYS[kernel] * array_bytes / seconds / 1e9


def sweep_sizes(smallest: int, largest: int, factor: int) -> Iterator[int]:
    """Powers of ``factor`` from ``smallest``, and ``largest`` itself at the end."""
    size = smallest
    while size < largest:
        yield size
        size *= factor
    yield largest


def rounded(size: int, ranks: int, item_bytes: int) -> int:
    """``size`` made smaller so that every rank has an equal, whole share; at least one item."""
    unit = ranks * item_bytes
    return max(unit, size // unit * unit)


def training_flops_per_token(parameters: int, layers: int, width: int, length: int) -> float:
    """6 operations for each parameter that a token meets, and causal attention's 6 L d s."""
    return 6.0 * parameters + 6.0 * layers * width * length
