"""The model of a node's agent: one per channel, dead with it; answers as the real one documents.

``tests/simulation/test_model.py`` compares its answers with the real agent's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator

from tests.simulation.disk import AttemptFiles, Lease, RunShare
from tests.simulation.dispatcher import Dispatcher, Fault, Fields, Operation
from tests.simulation.node import Hold
from tests.simulation.supervisor import TICK_S, Supervisor, ranks_of
from tests.simulation.watch import Watch

LOCK_POLL_S = 0.05
LOCK_S = 10.0
LAUNCH_LOCK_S = 300.0
SUPERVISOR_END_S = 15.0


class FakeAgent(Dispatcher):
    """The operations of the agent."""

    # ---- before a run ---------------------------------------------------------------------------

    def _op_probe(self, request: Fields, payload: bytes) -> Operation:
        del request, payload
        asked, began = self.node.wall(), self.node.mono()
        yield 0.02
        ip = self.node.address
        facts = {
            "hostname": self.node.name,
            "boot_id": self.node.boot_id,
            "host_id": f"{self.node.boot_id}:net",
            "cpus": 4,
            "memory_bytes": 1 << 34,
            "disk_free_bytes": 1 << 34,
            "memlock_bytes": None,
            "interfaces": [
                {"name": "lo", "up": True, "loopback": True, "addresses": ["127.0.0.1"]},
                {"name": "eth0", "up": True, "addresses": [ip], "speed_mbit": 10000},
            ],
            "hcas": [],
            "gpus": [{"index": i, "name": "NVIDIA H100"} for i in range(self.node.gpus)],
            "route_address": ip,
            "agent_python": "3.11.7",
            "modules": {},
            "wall_clock": asked,
        }
        return {"facts": facts, "elapsed_s": self.node.mono() - began, "notes": []}

    def _op_offer(self, request: Fields, payload: bytes) -> Operation:
        yield 0.01
        digest = request["digest"]
        if digest in self.node.disk.snapshots:
            return {"have": True, "digest": digest}
        if not payload:
            return {"have": False, "digest": digest, "base": "", "store": self.node.name}
        self.node.disk.write()
        return {"have": False, "digest": digest, "missing": self.node.world.everything_missing}

    def _op_push(self, request: Fields, payload: bytes) -> Operation:
        yield 0.02
        if self.node.disk.full:
            raise Fault("OR-AGENT-DISK", "the disk is full")
        if request.get("last") is True:
            self.node.disk.snapshots.add(request["digest"])
        return {"complete": request.get("last") is True, "digest": request["digest"]}

    def _op_interpreter(self, request: Fields, payload: bytes) -> Operation:
        yield 0.02
        torch = {"torch": "2.13.0"} if self.node.world.with_torch else {}
        modules = {"python": "3.11.7", **torch}
        return {"interpreter": "/usr/bin/python3", "modules": modules, "environment": {}}

    def _op_listen(self, request: Fields, payload: bytes) -> Operation:
        yield 0.005
        port = self.node.world.next_port()
        self._listeners.add(port)
        return {"port": port}

    def _op_release(self, request: Fields, payload: bytes) -> Operation:
        yield 0.005
        if request["port"] not in self._listeners:
            raise Fault("OR-AGENT-ABSENT", f"port {request['port']} is not listened on")
        self._listeners.discard(request["port"])
        return {}

    def _op_dial(self, request: Fields, payload: bytes) -> Operation:
        yield 0.02
        listening = self.node.world.listeners()
        results = []
        for host, port in request["targets"]:
            if (host, port) in listening:
                results.append({"ok": True, "ms": 0.2, "local": self.node.address})
            else:
                results.append({"ok": False, "error": "Connection refused"})
        return {"results": results}

    # ---- locks ----------------------------------------------------------------------------------

    def _op_reserve(self, request: Fields, payload: bytes) -> Operation:
        yield 0.01
        share = self._share(request)
        yield from self._held(share, request, LOCK_S)
        try:
            refused = self._take(request)
        finally:
            share.busy = False
        if refused is None:
            return {"reserved": True}
        return {"reserved": False, "lock": refused.name, "holder": dict(refused.about)}

    def _op_unreserve(self, request: Fields, payload: bytes) -> Operation:
        yield 0.01
        share = self._share(request)
        yield from self._locked(share, LOCK_S)
        share.busy = False
        return {"released": self.node.locks.release(self, share.run, share.node)}

    def _take(self, request: Fields) -> Hold | None:
        """All or nothing; who is in the way. An agent that an earlier channel of the same share
        left behind is ended; what our own supervisor has counts as ours.
        """
        run, node = request["run"], request["node"]
        wanted = [(str(lock["name"]), lock["mode"] == "shared") for lock in request["locks"]]
        mine = {h.name for h in self.node.locks.of(run, node) if h.owner is self}
        taken: list[tuple[str, bool]] = []
        for name, shared in wanted:
            while name not in mine and (other := self.node.locks.conflict(name, shared)):
                if (other.run, other.node) != (run, node):
                    return other
                if not isinstance(other.owner, FakeAgent):
                    break
                other.owner.die()
            else:
                if name not in mine:
                    taken.append((name, shared))
        about = {
            "run": run,
            "node": node,
            "user": "user",
            "pid": self.pid,
            "since": self.node.wall(),
            "coordinator": request.get("coordinator", ""),
        }
        for name, shared in taken:
            self.node.locks.take(Hold(name, shared, self, run, node, about))
        return None

    # ---- runs -----------------------------------------------------------------------------------

    def _share(self, request: Fields) -> RunShare:
        return self.node.disk.share(request["run"], request["node"])

    def _existing(self, request: Fields) -> AttemptFiles:
        files = self._share(request).attempts.get(request["attempt"])
        if files is None:
            raise Fault("OR-AGENT-ABSENT", "this node knows nothing of that attempt")
        return files

    def _fence(self, share: RunShare, request: Fields) -> None:
        epoch = request.get("epoch")
        if type(epoch) is not int:
            raise Fault("OR-AGENT-REQUEST", "'epoch' is not a whole number")
        if epoch < share.epoch:
            raise Fault("OR-AGENT-FENCED", f"epoch {share.epoch} holds this run")
        if epoch > share.epoch:
            self.node.disk.write()
            share.epoch = epoch
        self.node.world.acted(self, share, epoch, str(request["op"]))

    def _locked(self, share: RunShare, limit_s: float) -> Generator[float, None, None]:
        waited_s = 0.0
        while share.busy:
            if waited_s >= limit_s:
                raise Fault("OR-AGENT-BUSY", "lock is held by another process")
            waited_s += LOCK_POLL_S
            yield LOCK_POLL_S
        share.busy = True

    def _held(
        self, share: RunShare, request: Fields, limit_s: float
    ) -> Generator[float, None, None]:
        """The run's lock, with the run taken for the request's epoch."""
        self.node.disk.write()
        yield from self._locked(share, limit_s)
        try:
            self._fence(share, request)
        except BaseException:
            share.busy = False
            raise

    def _lease(self, request: Fields) -> Lease:
        lease_s = request["lease_s"]
        deadline = None if lease_s is None else self.node.mono() + lease_s
        return Lease(request["epoch"], deadline)

    def _alive(self, files: AttemptFiles) -> Supervisor | None:
        found = (s for s in self.node.supervisors(files.run) if s.files is files)
        return next(found, None)

    def supervises(self, files: AttemptFiles) -> bool:
        """Whether the attempt's supervisor is alive."""
        return self._alive(files) is not None

    def _status(self, files: AttemptFiles) -> str:
        if files.supervisor is None:
            return "none"
        if self._alive(files):
            return "alive"
        return "concluded" if files.concluded else "lost"

    def _op_launch(self, request: Fields, payload: bytes) -> Operation:
        yield 0.01
        snapshot = request.get("snapshot")
        if snapshot is not None and snapshot not in self.node.disk.snapshots:
            raise Fault("OR-AGENT-ABSENT", "the snapshot is not on this node")
        share = self._share(request)
        yield from self._held(share, request, LAUNCH_LOCK_S)
        try:
            known = share.attempts.get(request["attempt"])
            if known is not None and known.supervisor is not None:
                alive = self._alive(known) is not None
                return {"supervisor": known.supervisor.told(), "already": True, "alive": alive}
            for other in share.attempts.values():
                if self._alive(other):
                    raise Fault(
                        "OR-AGENT-BUSY", f"attempt {other.number} of this run is still running here"
                    )
            refused = self._take(request) if request.get("locks") else None
            if refused is not None:
                raise Fault("OR-AGENT-BUSY", f"{refused.name} is in use by {refused.about}")
            files = share.attempt(request["attempt"])
            yield 0.02
            self.node.disk.write()
            files.lease = self._lease(request)
            supervisor = self._spawn(share, files, request)
            yield 0.03
        finally:
            share.busy = False
        assert supervisor.files.supervisor is not None
        return {"supervisor": supervisor.files.supervisor.told(), "already": False, "alive": True}

    def _spawn(self, share: RunShare, files: AttemptFiles, request: Fields) -> Supervisor:
        ranks, launcher = ranks_of(request["processes"])
        self.node.world.launching(self.node, share, request)
        supervisor = Supervisor(
            self.node,
            share,
            files,
            ranks,
            script=self.node.world.script,
            grace_s=request["grace_s"],
            launcher=launcher,
        )
        self.node.locks.hand_over(self, supervisor, share.run, share.node)
        return supervisor

    def _op_renew(self, request: Fields, payload: bytes) -> Operation:
        yield 0.01
        files, share = self._existing(request), self._share(request)
        yield from self._held(share, request, LOCK_S)
        try:
            self.node.disk.write()
            files.lease = self._lease(request)
        finally:
            share.busy = False
        supervisor = self._alive(files)
        if supervisor is not None:
            self.node.world.call_later(TICK_S, supervisor.obey)
        return {"supervisor": self._status(files)}

    def _op_stop(self, request: Fields, payload: bytes) -> Operation:
        yield 0.01
        files, share = self._existing(request), self._share(request)
        if request.get("epoch") is not None:
            yield from self._held(share, request, LOCK_S)
            share.busy = False
        self._ask_to_stop(files, request["grace_s"])
        return {"supervisor": self._status(files)}

    def _ask_to_stop(self, files: AttemptFiles, grace_s: float) -> None:
        self.node.disk.write()
        files.stop_grace_s = grace_s
        supervisor = self._alive(files)
        if supervisor is not None:
            self.node.world.call_later(TICK_S, supervisor.obey)

    def _op_sweep(self, request: Fields, payload: bytes) -> Operation:
        yield 0.01
        share = self._share(request)
        if request.get("epoch") is not None:
            yield from self._held(share, request, LOCK_S)
            self.node.locks.release(self, share.run, share.node)
            share.busy = False
        living = [s for f in share.attempts.values() if (s := self._alive(f)) is not None]
        for supervisor in living:
            self._ask_to_stop(supervisor.files, 0.0)
        waited_s = 0.0
        while any(s.alive for s in living) and waited_s < SUPERVISOR_END_S:
            waited_s += 0.1
            yield 0.1
        for supervisor in living:
            supervisor.kill()
        yield 0.02
        left = self.node.marked(share.run, share.node)
        for process in left:
            process.kill()
        return {
            "scans": 2 + bool(left),
            "killed": [p.pid for p in left],
            "survivors": [],
            "clean": True,
            "gpu_drained": True if request.get("gpus") else None,
        }

    # ---- outputs --------------------------------------------------------------------------------

    def _op_outputs(self, request: Fields, payload: bytes) -> Operation:
        yield 0.01
        files = self._share(request).attempts.get(request["attempt"])
        found = files.outputs if files is not None else {}
        listing = [
            {"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in sorted(found.items())
        ]
        return {"count": len(listing)}, json.dumps(
            {"files": listing, "links": [], "folders": [], "skipped": []}
        ).encode()

    def _op_fetch(self, request: Fields, payload: bytes) -> Operation:
        yield 0.01
        files = self._share(request).attempts.get(request["attempt"])
        data = files.outputs.get(request["path"]) if files is not None else None
        if data is None:
            raise Fault("OR-AGENT-ABSENT", f"output/{request['path']}: No such file or directory")
        offset = request["offset"]
        return {"size": len(data)}, data[offset : offset + request["length"]]

    def _op_watch(self, request: Fields, payload: bytes) -> Operation:
        yield 0.005
        files = self._share(request).expected(request["attempt"])
        self._watches[request["id"]] = Watch(self, files, request["id"], request["cursors"])
        return {"watch": request["id"]}
