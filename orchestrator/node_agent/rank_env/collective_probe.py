"""One rank of a collective that is only tried: ``collective_trial.py BACKEND BYTES``.

Runs under the ranks' interpreter, with torchrun's environment contract and the variables that the
ranks will have. Writes one JSON line per stage to standard output: ``imported``, ``met``,
``joined``, ``reduced``, ``measured``; or ``error``, with the stage that was not reached and why.
Every stage has its own deadline, which a thread keeps: what hangs, hangs in a library.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

# Seconds until the next stage. Ranks meet before the clock of the network begins to run: importing
# torch may take a minute from a slow disk.
LIMITS = {"imported": 60.0, "met": 60.0, "joined": 10.0, "reduced": 10.0, "measured": 20.0}
# The watchdogs of the libraries come after ours, which tells more.
LIBRARY_S = 120.0
VALUES = 1024
SMALL_BYTES = 16 * 1024 * 1024
# One large all-reduce may take so long; the size is chosen by that.
PATIENCE_S = 0.5
WARM_UPS, REPEATS = 2, 5
NCCL_LOG_BYTES = 1024 * 1024
FAILED = 3


class Teller:
    """Tells stages as they are reached; ends the process when one is overdue."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = iter(LIMITS)
        self._began = time.monotonic()
        self._log = -1
        self._expect()
        threading.Thread(target=self._watch, daemon=True).start()

    def keep_log(self) -> None:
        """Let NCCL write what it does where only we read it: no file, no pipe that fills."""
        self._log = os.memfd_create("nccl")
        os.environ["NCCL_DEBUG"] = "INFO"
        os.environ["NCCL_DEBUG_SUBSYS"] = "INIT,NET"
        os.environ["NCCL_DEBUG_FILE"] = f"/proc/self/fd/{self._log}"

    def reached(self, stage: str, **fields: object) -> None:
        with self._lock:
            assert stage == self._stage
            self._write({"stage": stage, **fields})
            self._expect()

    def fail(self, message: str) -> NoReturn:
        """The one last word; threads of libraries are not waited for."""
        with self._lock:
            stage = self._stage
            said = [line for line in self.log() if " WARN " in line]
            self._write({"stage": "error", "at": stage, "message": message, "log": said[-3:]})
            os._exit(FAILED)

    def log(self) -> list[str]:
        """NCCL's own words so far."""
        if self._log < 0:
            return []
        data = os.pread(self._log, NCCL_LOG_BYTES, 0)
        return [line[:400] for line in data.decode(errors="replace").splitlines()]

    def _expect(self) -> None:
        self._stage = next(self._next, "")
        self._deadline = time.monotonic() + LIMITS.get(self._stage, LIBRARY_S)

    def _watch(self) -> None:
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                self.fail(f"no answer within {LIMITS.get(self._stage, LIBRARY_S):g} s")
            time.sleep(min(left, 0.2))

    def _write(self, record: dict[str, object]) -> None:
        record["seconds"] = round(time.monotonic() - self._began, 3)
        sys.stdout.write(json.dumps(record) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Through all stages, or to the first that fails."""
    backend, size = sys.argv[1], int(sys.argv[2])
    teller = Teller()
    if backend == "nccl":
        teller.keep_log()
    try:
        try_collective(teller, backend, size)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what people must be told
        text = " ".join(str(error).split())
        teller.fail(f"{type(error).__name__}: {text[:600]}")


def try_collective(teller: Teller, backend: str, size: int) -> None:
    """Meet, join, reduce, measure."""
    import torch
    import torch.distributed as dist

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cpu")
    if backend == "nccl":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        torch.cuda.init()
    teller.reached("imported", torch=torch.__version__, nccl=nccl_version(torch, backend))
    store = meet(dist, rank, world)
    teller.reached("met")
    patience = dt.timedelta(seconds=LIBRARY_S)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=patience)
    teller.reached("joined")
    group = Group(torch, dist, device, world)
    group.check_sum(rank)
    teller.reached("reduced", **network(teller.log()))
    used, seconds = group.measure(size)
    teller.reached("measured", bytes=used, took=seconds, **network(teller.log()))
    # Nobody leaves before all have measured; and nobody waits for a library to take itself down.
    store.set(f"left/{rank}", "1")
    if rank == 0:
        store.wait([f"left/{other}" for other in range(world)])
    os._exit(0)


def nccl_version(torch: Any, backend: str) -> str:
    if backend != "nccl":
        return ""
    return ".".join(str(part) for part in torch.cuda.nccl.version())


def meet(dist: Any, rank: int, world: int) -> Any:
    """A store that all ranks have come to. Raises what says who did not."""
    patience = dt.timedelta(seconds=LIMITS["met"] - 5.0)
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, world, rank == 0, timeout=patience, wait_for_workers=False)
    store.set(f"came/{rank}", "1")
    everybody = [f"came/{other}" for other in range(world)]
    try:
        store.wait(everybody)
    except Exception as error:
        absent = [str(r) for r, key in enumerate(everybody) if not store.check([key])]
        raise RuntimeError("no report from rank {}".format(", ".join(absent[:8]))) from error
    return store


class Group:
    """The process group that all ranks have joined."""

    def __init__(self, torch: Any, dist: Any, device: Any, world: int) -> None:
        self._torch = torch
        self._dist = dist
        self._device = device
        self._world = world

    def check_sum(self, rank: int) -> None:
        """A small all-reduce whose every value is known."""
        world = self._world
        pattern = self._torch.arange(VALUES, dtype=self._torch.int64, device=self._device)
        values = pattern + rank
        self._dist.all_reduce(values)
        wrong = int((values != pattern * world + world * (world - 1) // 2).sum().item())
        if wrong:
            raise ValueError(f"{wrong} of {VALUES} values of a sum are wrong")

    def measure(self, size: int) -> tuple[int, float]:
        """(bytes, seconds) of the largest all-reduce that is not too slow and fits; seconds are
        the median over repeats of the slowest rank's.
        """
        size = self._agreed(min(size, self._fitting()), self._dist.ReduceOp.MIN)
        small = min(size, SMALL_BYTES)
        seconds = self._timed(small, 1, 1)
        while size > small and seconds * size / small > PATIENCE_S:
            size //= 2
        if size > small:
            seconds = self._timed(size, WARM_UPS, REPEATS)
        return max(size, small), seconds

    def _fitting(self) -> int:
        """A third of the free memory: values, NCCL's buffers, and something to spare."""
        if self._device.type != "cuda":
            return SMALL_BYTES
        return int(self._torch.cuda.mem_get_info(self._device)[0] // 3)

    def _agreed(self, value: int, how: Any) -> int:
        shared = self._torch.tensor([value], dtype=self._torch.int64, device=self._device)
        self._dist.all_reduce(shared, op=how)
        return int(shared.item())

    def _timed(self, size: int, warm_ups: int, repeats: int) -> float:
        values = self._torch.empty(size // 4, dtype=self._torch.float32, device=self._device)
        took = []
        for _ in range(warm_ups + repeats):
            values.fill_(1.0)
            self._dist.barrier()
            self._settle()
            began = time.perf_counter()
            self._dist.all_reduce(values)
            self._settle()
            took.append(time.perf_counter() - began)
        if bool((values != float(self._world)).any().item()):
            raise ValueError(f"values of a sum over {size} bytes are wrong")
        median = sorted(took[warm_ups:])[repeats // 2]
        return self._agreed(int(median * 1e9), self._dist.ReduceOp.MAX) / 1e9

    def _settle(self) -> None:
        if self._device.type == "cuda":
            self._torch.cuda.synchronize(self._device)


def network(log: list[str]) -> dict[str, object]:
    """What NCCL says it uses between nodes: its connections, else the plugin that it chose."""
    via = [line for line in log if " via NET/" in line]
    chosen = [line for line in log if "Assigned NET plugin " in line]
    using = [line for line in log if " : Using [0]" in line]
    for lines, before in ((via, " via NET/"), (chosen, "NET plugin "), (using, "NET/")):
        if lines:
            line = lines[-1]
            name = line.partition(before)[2].replace("/", " ").split()[0]
            direct = any("GDRDMA" in other for other in via)
            words = line.partition("NCCL INFO ")[2] or line
            return {"network": name, "detail": words.strip()[:300], "gdr": direct}
    return {}


if __name__ == "__main__":
    main()
