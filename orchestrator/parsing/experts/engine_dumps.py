"""Dumps of expert loads: SGLang's recorder, vLLM's balancer (EPLB)."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np

from orchestrator.core.monitoring.expert_load import ExpertTable
from orchestrator.parsing.experts.expert_shape import BadExpertFile, table_from_steps
from orchestrator.parsing.experts.torch_archive import read_torch_archive

# SGLang: python/sglang/srt/eplb/expert_distribution.py, modes stat and stat_approx.
LOGICAL_COUNT = "logical_count"
# vLLM: EPLBConfig(save_load_window=True) writes global_expert_load_window_iN.safetensors.
LOAD_WINDOW = "load_window"
MAX_HEADER = 16 << 20
MAX_BYTES = 512 << 20
SAFETENSORS = {
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
}


def parse_sglang_dump(file: io.BufferedIOBase) -> ExpertTable:
    """``logical_count`` of a recorder's ``.pt`` file: steps x layers x experts. Raises
    :class:`BadExpertFile`, also for the recorder's modes per_pass and per_token.
    """
    data = read_torch_archive(file)
    counts = data.get(LOGICAL_COUNT) if isinstance(data, dict) else None
    if isinstance(data, dict) and "records" in data:
        why = "recorded per pass or per token; start SGLang with"
        raise BadExpertFile(f"{why} --expert-distribution-recorder-mode stat")
    if not isinstance(counts, np.ndarray):
        raise BadExpertFile(f"no {LOGICAL_COUNT} in it")
    return table_from_steps("sglang", counts, LOGICAL_COUNT)


def parse_vllm_dump(file: io.BufferedIOBase) -> ExpertTable:
    """The load window of a ``.safetensors`` file: layers x experts, or steps before them. Raises
    :class:`BadExpertFile`.
    """
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= MAX_HEADER:
        raise BadExpertFile("no safetensors file: its header has no sensible length")
    try:
        header: Any = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise BadExpertFile(f"no safetensors file: {str(error)[:200]}") from error
    names = [n for n in header if LOAD_WINDOW in n] if isinstance(header, dict) else []
    tensors = [n for n in header if n != "__metadata__"] if isinstance(header, dict) else []
    name = (names or tensors)[0] if len(names) == 1 or len(tensors) == 1 else ""
    if not name:
        raise BadExpertFile(f"expected one tensor that is a {LOAD_WINDOW}")
    return table_from_steps("vllm", _read_tensor(file, header[name], 8 + length), name)


def _read_tensor(file: io.BufferedIOBase, entry: Any, start: int) -> np.ndarray:
    try:
        kind, shape = np.dtype(SAFETENSORS[entry["dtype"]]), [int(n) for n in entry["shape"]]
        first, last = (int(n) for n in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadExpertFile(f"a tensor of a kind that is not read: {str(error)[:80]}") from error
    size = math.prod(shape) * kind.itemsize
    if min(shape, default=0) < 0 or last - first != size or not 0 <= size <= MAX_BYTES or first < 0:
        raise BadExpertFile("a tensor whose size and shape differ")
    file.seek(start + first)
    content = file.read(size)
    if len(content) < size:
        raise BadExpertFile("the file ends within a tensor")
    return np.frombuffer(content, dtype=kind).reshape(shape)
