"""The acceptance workload with all that it does around GPUs, on a CPU: which rank asks whom, and
when all of them must meet. Tensors, events and kernels are the CPU's.

    torchrun acceptance_as_on_gpus.py FOLDER_OF_WORKLOADS PAIRS_PROGRAM ARGUMENTS...
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.append(sys.argv[1])

import torch
from torch.nn.parallel import DistributedDataParallel

from acceptance import acceptance
from acceptance.base import ranks
from acceptance.measure import concurrency, throughput, transfers

COPIES = {"host-to-device": 55.0, "device-to-host": 54.0, "wrong": 0, "checked": 2}


def main() -> None:
    local, pairs = os.environ["LOCAL_RANK"], Path(sys.argv[2])
    sys.argv[1:] = sys.argv[3:]
    ranks.Ranks.cuda = property(lambda _self: True)  # type: ignore[method-assign,assignment]
    torch.cuda.synchronize = lambda *_: None
    torch.cuda.empty_cache = lambda: None
    torch.cuda.mem_get_info = lambda _device: (4 * 10**7, 10**8)
    torch.cuda.reset_peak_memory_stats = lambda _device: None
    torch.cuda.max_memory_allocated = lambda _device: 123
    torch.cuda.get_device_name = lambda _device: "NVIDIA H200"
    torch.cuda.device_count = lambda: 2
    acceptance._uuid = lambda _device: f"GPU-{local}"
    acceptance.PAIRS = pairs
    throughput.DistributedDataParallel = on_cpu  # type: ignore[misc,assignment]
    transfers.measure = lambda _device, _options: COPIES
    # What takes a GPU a moment takes a CPU a minute.
    concurrency.GPU_SHAPE, concurrency.GPU_BYTES = concurrency.CPU_SHAPE, 1 << 20
    acceptance.main()


def on_cpu(model: Any, *, device_ids: object, process_group: Any) -> DistributedDataParallel:
    assert device_ids is not None
    return DistributedDataParallel(model, process_group=process_group)


if __name__ == "__main__":
    main()
