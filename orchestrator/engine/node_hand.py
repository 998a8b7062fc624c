"""What can be done to one node: each method performs one action and posts the event that it
led to.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path

from orchestrator.boundary.facts import parse_facts
from orchestrator.boundary.supervisor_records import parse_interpreter, parse_survivors
from orchestrator.core.command import reveal
from orchestrator.core.errors import OrchestrateError
from orchestrator.core.events import (
    Connected,
    Prepared,
    Probed,
    Reached,
    RendezvousOffered,
    Swept,
    Synced,
)
from orchestrator.core.inventory import NodeSpec, PythonKind
from orchestrator.core.plan import NodePlan, ProcessPlan
from orchestrator.core.workload import Workload
from orchestrator.edges.agent.channel import AgentChannel
from orchestrator.edges.sync.push import push_snapshot
from orchestrator.engine.collect import collect_outputs
from orchestrator.engine.context import Post, RunContext
from orchestrator.engine.node_link import NodeLink
from orchestrator.engine.watching import Watcher

ATTEMPT = 1
EPOCH = 1
# A sweep fences off launches of the run that come too late; the coordinator's own come before.
SWEEP_EPOCH = EPOCH + 1
QUICK_S = 30.0
DIAL_S = 5.0
RENEWALS_PER_LEASE = 4
BUILD_NOTE_EVERY_S = 5.0


class NodeHand:
    """One node of one run: its link, its watch, its lease."""

    def __init__(self, spec: NodeSpec, context: RunContext, post: Post) -> None:
        self._spec = spec
        self._context = context
        self._request = context.request
        self._snapshot = context.snapshot
        self._clock = context.clock
        self._post = post
        self._link = NodeLink(
            spec,
            silence_s=context.request.budgets.silence_s,
            limits=context.limits,
            clock=context.clock,
        )
        self._began = context.clock.monotonic()
        self._offset_s = 0.0
        self._watcher: Watcher | None = None
        self._launching = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self) -> None:
        await self._link.open(self._request.budgets.connect_s)
        seconds = self._clock.monotonic() - self._began
        self._post(Connected(node=self._spec.name, seconds=round(seconds, 3)))

    async def probe(self) -> None:
        asked = self._clock.wall()
        reply = await self._link.request("probe", timeout_s=self._request.budgets.probe_s)
        facts = parse_facts(self._spec.name, reply.fields, asked=asked, answered=self._clock.wall())
        self._offset_s = facts.clock_offset_s
        self._post(Probed(node=self._spec.name, facts=facts))

    async def sync(self) -> None:
        channel = await self._link.open(self._request.budgets.connect_s)
        sent = await push_snapshot(channel, self._snapshot, timeout_s=self._request.budgets.sync_s)
        self._post(
            Synced(
                node=self._spec.name,
                digest=self._snapshot.digest,
                sent_files=sent.files,
                sent_bytes=sent.bytes,
            )
        )

    async def prepare(self) -> None:
        """The interpreter: built from requirements, or the declared one; then what it can
        import.
        """
        # A launcher is chosen by whether torch is there, whatever the workload requires.
        wanted = sorted({*self._request.job.workload.modules, "torch"})
        reply = await self._link.request(
            "interpreter",
            {"interpreter": await self._interpreter(), "modules": wanted},
            timeout_s=self._request.budgets.probe_s,
        )
        path, modules = parse_interpreter(reply.fields)
        self._post(Prepared(node=self._spec.name, interpreter=path, modules=modules))

    async def offer_rendezvous(self) -> None:
        reply = await self._link.request("listen", timeout_s=QUICK_S)
        port = reply.fields.get("port")
        if type(port) is not int or not 0 < port < 65536:
            raise OSError(f"{self._spec.name} offered no port")
        self._post(RendezvousOffered(node=self._spec.name, port=port))

    async def reach(self, addresses: Sequence[str], port: int) -> None:
        reply = await self._link.request(
            "dial",
            {"targets": [[address, port] for address in addresses], "timeout_s": DIAL_S},
            timeout_s=QUICK_S,
        )
        results = reply.fields.get("results")
        results = results if isinstance(results, list) else []
        good = [(a, r) for a, r in zip(addresses, results, strict=False) if r.get("ok") is True]
        bad = [r for r in results if r.get("ok") is not True]
        self._post(
            Reached(
                node=self._spec.name,
                addresses=tuple(address for address, _ in good),
                via=tuple(str(result.get("local", ""))[:64] for _, result in good),
                errors=tuple(str(result.get("error", ""))[:200] for result in bad),
            )
        )

    async def launch(self, share: NodePlan, port: int | None) -> None:
        """Start the supervisor and follow it. ``port``: the rendezvous port to let go of first."""
        async with self._launching:
            await self._launch(share, port)
        self._watcher = Watcher(
            self._link,
            attempt=self._attempt(),
            context=self._context,
            post=self._post,
            clock_offset_s=self._offset_s,
        )
        self._tasks = [
            asyncio.create_task(self._watcher.run()),
            asyncio.create_task(self._renew()),
        ]

    async def _launch(self, share: NodePlan, port: int | None) -> None:
        if port is not None:
            await self._link.request("release", {"port": port}, timeout_s=QUICK_S)
        budgets = self._request.budgets
        own_code = self._request.job.workload.own_code
        request = {
            **self._attempt(),
            "epoch": EPOCH,
            "lease_s": budgets.lease_s,
            "grace_s": budgets.grace_s,
            "cwd": "{work}" if own_code else "{output}",
            "own_copy": own_code,
            "snapshot": self._snapshot.digest,
            "processes": [_process(share, process) for process in share.processes],
        }
        await self._link.request("launch", request, timeout_s=budgets.launch_s)

    async def stop(self, grace_s: float) -> None:
        """Ask the supervisor to stop; a launch that is under way is waited for."""
        request = {**self._attempt(), "grace_s": grace_s}
        async with self._launching:
            await self._link.request("stop", request, timeout_s=QUICK_S)

    async def collect(self) -> None:
        """Wait until every log byte is here, then pull the outputs."""
        if self._watcher is not None:
            await self._watcher.drained()
        self._post(
            await collect_outputs(
                self._link,
                self._attempt(),
                self._context.folder,
                timeout_s=self._request.budgets.collect_s,
            )
        )

    async def sweep(self) -> None:
        """End and verify what is left; from then on the node refuses launches of ours."""
        timeout_s = self._request.budgets.clean_s
        run = self._request.run_id
        fields = {"run": run, "node": self._spec.name, "epoch": SWEEP_EPOCH}
        reply = await self._link.request("sweep", fields, timeout_s=timeout_s)
        killed = reply.fields.get("killed")
        self._post(
            Swept(
                node=self._spec.name,
                clean=reply.fields.get("clean") is True,
                killed=len(killed) if isinstance(killed, list) else 0,
                survivors=parse_survivors(reply.fields.get("survivors")),
            )
        )

    async def close(self) -> None:
        """End watch, lease and link. Bounded, never raises."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._link.close()

    async def _renew(self) -> None:
        """Keep the node's lease alive for as long as the coordinator is."""
        lease_s = self._request.budgets.lease_s
        fields = {**self._attempt(), "epoch": EPOCH, "lease_s": lease_s}
        while True:
            await asyncio.sleep(lease_s / RENEWALS_PER_LEASE)
            try:
                await self._link.request("renew", fields, timeout_s=lease_s)
            except OrchestrateError:
                # The watch sees the same broken link and decides; a lease that runs out is safe.
                continue

    def _attempt(self) -> dict[str, object]:
        return {"run": self._request.run_id, "node": self._spec.name, "attempt": ATTEMPT}

    async def _interpreter(self) -> dict[str, str]:
        """What the agent should resolve: a kind and a value. Builds an environment if that is
        asked.
        """
        python = self._spec.python
        source = requirements_of(self._spec, self._request.job.workload)
        if source is not None:
            return {"kind": "interpreter", "value": await self._build(source)}
        if python.kind in (PythonKind.REQUIREMENTS, PythonKind.WORKLOAD):
            return {"kind": "interpreter", "value": python.base}
        return {"kind": python.kind.value, "value": python.value}

    async def _build(self, requirements: Path) -> str:
        """The interpreter of the environment made from ``requirements``, built unless cached."""
        text = await asyncio.to_thread(requirements.read_bytes)
        base = self._spec.python.base
        channel = await self._link.open(self._request.budgets.connect_s)
        telling = asyncio.create_task(self._tell_build(channel))
        try:
            reply = await self._link.request(
                "environment",
                {"digest": hashlib.sha256(base.encode() + b"\0" + text).hexdigest(), "base": base},
                timeout_s=self._request.budgets.prepare_s,
                payload=text,
            )
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
        return str(reply.fields.get("interpreter"))

    async def _tell_build(self, channel: AgentChannel) -> None:
        """A line now and then: building an environment takes minutes and must not look hung."""
        told_at = self._clock.monotonic() - BUILD_NOTE_EVERY_S
        async for event in channel.events():
            now = self._clock.monotonic()
            line = str(event.fields.get("line", "")).strip()
            if event.name == "environment" and line and now - told_at >= BUILD_NOTE_EVERY_S:
                told_at = now
                note = f"{self._spec.name}: building its Python environment: {line[:100]}"
                self._context.note(note)


def requirements_of(spec: NodeSpec, workload: Workload) -> Path | None:
    """The coordinator's requirements file that the node's environment is built from, if any."""
    if spec.python.kind is PythonKind.REQUIREMENTS:
        return Path(spec.python.value)
    if spec.python.kind is PythonKind.WORKLOAD and workload.requirements:
        return Path(workload.folder) / workload.requirements
    return None


def _process(share: NodePlan, process: ProcessPlan) -> dict[str, object]:
    """The agent's form of a planned process; secrets are opened here and travel over the
    channel.
    """
    env = {v.name: reveal(v.value) for v in (*share.env, *process.env)}
    return {
        "label": process.label,
        "rank": process.rank,
        "argv": list(process.argv),
        "env": env,
    }
