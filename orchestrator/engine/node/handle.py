"""What can be done to one node: each method performs one action and posts the event that it
led to.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import getpass
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.adapters.agent_client.channel import AgentError
from orchestrator.adapters.store.atomic_files import make_private_dir
from orchestrator.adapters.sync.push import push_snapshot
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.core.model.plan import Lock, NodePlan, ProcessPlan, Variable
from orchestrator.core.run.connectivity import Reached, RendezvousOffered
from orchestrator.core.run.events import (
    Cleared,
    Connected,
    Event,
    Launched,
    NodeConcluded,
    Occupied,
    Probed,
    Reported,
    Synced,
)
from orchestrator.core.run.evidence import Inspected
from orchestrator.core.run.state import NEVER_LAUNCHED, RunState
from orchestrator.engine.node.collect_outputs import collect_outputs, fetch_output
from orchestrator.engine.node.hang_inspection import look_at
from orchestrator.engine.node.lease_renewal import NodeLease
from orchestrator.engine.node.link import NodeLink
from orchestrator.engine.node.log_stream import Watcher
from orchestrator.engine.node.python_environment import prepare
from orchestrator.engine.node.requests import agent_facts, agent_locks, agent_process
from orchestrator.engine.node.trial_ports import ABSENT, TrialPorts
from orchestrator.engine.node.upload import sha256_of, slices_of
from orchestrator.engine.support.context import Post, RunContext
from orchestrator.engine.support.diagnose_run import kernel_may_know
from orchestrator.engine.support.replay import read_positions
from orchestrator.parsing.replies.output_listing import OfferedOutput
from orchestrator.parsing.replies.probe_reply import parse_facts
from orchestrator.parsing.replies.supervisor_records import parse_holder, parse_swept
from orchestrator.parsing.replies.trial_records import TriedProcess, parse_trial

# A sweep fences off launches of the same epoch that come too late.
SWEEP_STEP = 1
QUICK_S = 30.0
CLEAR_S = 60.0
DIAL_S = 5.0
FEED_S = 600.0
KERNEL_LOG = "kernel.out"


class NodeHandle(TrialPorts):
    """One node in one attempt of a run: its link, its watch, its lease."""

    def __init__(
        self,
        spec: NodeSpec,
        context: RunContext,
        state: RunState,
        post: Post,
        exchanged: Callable[[], None] = lambda: None,
    ) -> None:
        self._spec = spec
        self._context = context
        self._request = state.request
        self._attempt = state.attempt
        self._clock = context.clock
        self._post = post
        self._exchanged = exchanged
        self._link = NodeLink(
            spec,
            silence_s=state.request.budgets.silence_s,
            limits=context.limits,
            clock=context.clock,
            dial=context.dial,
        )
        super().__init__(self._link)
        self._lease = NodeLease(spec.name, self._link, state, post)
        self._began = context.clock.monotonic()
        self._watcher: Watcher | None = None
        self._launching = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        self.sweeping = False

    @property
    def broken(self) -> bool:
        """Whether the link was there and is gone."""
        return self._link.broken

    async def connect(self) -> None:
        await self._link.open(self._request.budgets.connect_s)
        seconds = self._clock.monotonic() - self._began
        self._post(Connected(node=self._spec.name, seconds=round(seconds, 3)))

    async def probe(self) -> None:
        asked = self._clock.wall()
        reply = await self._link.request("probe", timeout_s=self._request.budgets.probe_s)
        facts = parse_facts(self._spec.name, reply.fields, asked=asked, answered=self._clock.wall())
        self._post(Probed(node=self._spec.name, facts=facts))

    async def clear(self) -> None:
        """End what earlier attempts left: our own epoch fences theirs off, not ours. What their
        ranks wrote and reported after their link was lost comes home.
        """
        reply = await self._link.request("sweep", self._lease.fenced(), timeout_s=CLEAR_S)
        swept = parse_swept(self._spec.name, reply.fields)
        for attempt in range(1, self._attempt):
            await self._bring_late_words(attempt)
        self._post(Cleared(node=swept.node, clean=swept.clean, survivors=swept.survivors))

    async def _bring_late_words(self, attempt: int) -> None:
        try:
            fields = {**self._lease.terms(), "attempt": attempt}
            await self._link.request("renew", fields, timeout_s=QUICK_S)
        except AgentError as error:
            if error.id == ABSENT:
                return
            raise
        name = self._spec.name
        read = await asyncio.to_thread(read_positions, self._context.folder, attempt)
        watcher = Watcher(
            self._link,
            attempt=attempt,
            context=self._context,
            post=functools.partial(self._post_late, attempt),
            clock_offset_s=0.0,
            positions={rank: at for (node, rank), at in read.items() if node == name},
        )
        async with asyncio.timeout(self._request.budgets.collect_s):
            await watcher.run()

    def _post_late(self, attempt: int, event: Event | BaseException) -> None:
        """Of an attempt that is over only its points count any more; our own troubles do."""
        if isinstance(event, Reported):
            self._post(replace(event, attempt=attempt))
        elif isinstance(event, BaseException):
            self._post(event)

    async def sync(self) -> None:
        snapshot = self._context.snapshot
        assert snapshot is not None, "a run that is only to be ended brings no code"
        sent = await push_snapshot(self._link, snapshot, timeout_s=self._request.budgets.sync_s)
        self._post(
            Synced(
                node=self._spec.name,
                digest=snapshot.digest,
                sent_files=sent.files,
                sent_bytes=sent.bytes,
            )
        )

    async def prepare(self) -> None:
        self._post(await prepare(self._link, self._request, self._context))

    async def offer_rendezvous(self) -> None:
        self._post(RendezvousOffered(node=self._spec.name, port=await self.listen()))

    async def reach(self, addresses: Sequence[str], port: int) -> None:
        results = await self.dial([(address, port) for address in addresses], DIAL_S)
        good = [(a, r) for a, r in zip(addresses, results, strict=True) if r.ok]
        self._post(
            Reached(
                node=self._spec.name,
                addresses=tuple(address for address, _ in good),
                via=tuple(result.local for _, result in good),
                errors=tuple(result.error for result in results if not result.ok),
            )
        )

    async def trial(
        self, name: str, processes: Sequence[ProcessPlan], env: Sequence[Variable], within_s: float
    ) -> tuple[TriedProcess, ...]:
        """Run ``processes`` to their end, for at most ``within_s``; nothing of them is left."""
        fields = {
            **self._lease.fenced(),
            "trial": name,
            "deadline_s": within_s,
            "snapshot": self._request.code or None,
            "processes": [agent_process(env, process) for process in processes],
        }
        reply = await self._link.request("trial", fields, timeout_s=within_s + QUICK_S)
        return parse_trial(reply.payload, within_s)

    async def end_trial(self, name: str) -> None:
        """Let it end now; whoever waits for ``trial`` hears of it."""
        await self._link.request("end_trial", {"trial": name}, timeout_s=QUICK_S)

    async def reserve(self, locks: Sequence[Lock]) -> Occupied | None:
        """Take ``locks`` until the launch, or tell who has one of them."""
        fields = {
            **self._lease.fenced(),
            "locks": agent_locks(locks),
            "coordinator": self._coordinator(),
        }
        reply = await self._link.request("reserve", fields, timeout_s=QUICK_S)
        if reply.fields.get("reserved") is True:
            return None
        holder = parse_holder(reply.fields)
        return Occupied(node=self._spec.name, holder=holder)

    async def unreserve(self) -> None:
        """Let go of what ``reserve`` took."""
        await self._link.request("unreserve", self._lease.named(), timeout_s=QUICK_S)

    async def launch(
        self, share: NodePlan, port: int | None, *, independent: bool, facts: Facts | None
    ) -> None:
        """Start the supervisor. ``port``: the rendezvous port to let go of first. ``independent``:
        a rank that fails does not end the node's other ones. ``facts``: what the probe found.
        """
        async with self._launching:
            if port is not None:
                await self.release(port)
            budgets = self._request.budgets
            own_code = self._request.job.workload.own_code
            fields = {
                **self._lease.fenced(),
                "lease_s": budgets.lease_s,
                "grace_s": budgets.grace_s,
                "cwd": "{work}" if own_code else "{output}",
                "own_copy": own_code,
                "independent": independent,
                "snapshot": self._request.code,
                "locks": agent_locks(share.locks),
                "coordinator": self._coordinator(),
                "gpus": list(share.gpus),
                "facts": agent_facts(facts),
                "processes": [agent_process(share.env, process) for process in share.processes],
            }
            await self._link.request("launch", fields, timeout_s=budgets.launch_s)
        self._post(Launched(node=self._spec.name))

    async def follow(self, state: RunState) -> None:
        """Watch the supervisor from where our copy of its logs ends, and keep its lease alive."""
        await self._watch(state)
        self._lease.keep()

    async def _watch(self, state: RunState) -> Watcher:
        """Raises ``AgentError`` when the node knows nothing of the attempt."""
        await self._lease.renew()
        facts = state.nodes[self._spec.name].facts
        self._watcher = Watcher(
            self._link,
            attempt=self._attempt,
            context=self._context,
            post=self._post,
            clock_offset_s=facts.clock_offset_s if facts else 0.0,
            positions={
                rank: at for (node, rank), at in state.positions.items() if node == self._spec.name
            },
            exchanged=self._exchanged,
        )
        self._watching = asyncio.create_task(self._watcher.run())
        return self._watcher

    async def stop(self, grace_s: float) -> None:
        """Ask the supervisor to stop; a launch that is under way is waited for."""
        fields = {**self._lease.fenced(), "grace_s": grace_s}
        async with self._launching:
            try:
                await self._link.request("stop", fields, timeout_s=QUICK_S)
            except AgentError as error:
                if error.id != ABSENT:
                    raise
                never = NodeConcluded(node=self._spec.name, clean=True, why=NEVER_LAUNCHED)
                self._post(never)
                return
        # A coordinator that takes over may not know yet that there is something to follow.
        self._post(Launched(node=self._spec.name))

    async def detach(self) -> None:
        """Let the ranks end now, and wait until they have; those without a lease go on."""
        await self._lease.detach()

    async def feed(self, rank: int, name: str, content: bytes | Path) -> None:
        """Give ``content``, bytes or a file, to a rank, under a number that it will ask for."""
        digest = await asyncio.to_thread(sha256_of, content)
        fields = {**self._lease.fenced(), "rank": rank, "name": name, "sha256": digest}
        async for offset, total, part in slices_of(content):
            place = {"offset": offset, "total": total}
            await self._link.request("feed", {**fields, **place}, timeout_s=FEED_S, payload=part)

    async def fetch_offered(self, name: str, size: int, sha256: str, target: Path) -> None:
        """Bring what a rank offers to ``target``; complete and verified, or not there.

        Raises ``OrchestrateError``, ``OSError``.
        """
        await fetch_output(
            self._link,
            {**self._lease.named(), "area": "exchange"},
            OfferedOutput(name, size, sha256),
            target,
        )

    async def inspect(self, stall: int) -> Inspected:
        """Look at the node's ranks; what was found goes into the run's folder."""
        folder = self._context.folder.node_hang(self._spec.name, self._attempt)
        found = await look_at(self._link, self._lease.named(), folder, self._context.note)
        return Inspected(node=self._spec.name, stall=stall, inspection=found)

    async def collect(self, state: RunState) -> None:
        """Wait until every log byte is here, then pull the outputs."""
        watcher = self._watcher or await self._watch(state)
        await watcher.drained()
        if kernel_may_know(state):
            await self._bring_kernel_log()
        self._post(
            await collect_outputs(
                self._link,
                self._request.run_id,
                self._attempt,
                self._context.folder,
                timeout_s=self._request.budgets.collect_s,
            )
        )

    async def _bring_kernel_log(self) -> None:
        """What the node's kernel said meanwhile may explain a failure; not every node tells it."""
        since_s = self._clock.monotonic() - self._began + QUICK_S
        with contextlib.suppress(AgentError):
            reply = await self._link.request("kernel", {"since_s": since_s}, timeout_s=QUICK_S)
            if reply.payload:
                path = self._context.folder.log(self._spec.name, KERNEL_LOG, self._attempt)
                make_private_dir(path.parent)
                await asyncio.to_thread(path.write_bytes, reply.payload)

    async def sweep(self, state: RunState) -> None:
        """End and verify what is left; from then on the node refuses what we asked for before."""
        self.sweeping = True
        self._lease.leave()  # or our own fence would look like somebody else's
        gpus = state.plan.node(self._spec.name).gpus if state.plan else ()
        fields = {**self._lease.fenced(later=SWEEP_STEP), "gpus": list(gpus)}
        timeout_s = self._request.budgets.clean_s
        reply = await self._link.request("sweep", fields, timeout_s=timeout_s)
        self._post(parse_swept(self._spec.name, reply.fields))

    async def close(self) -> None:
        """End watch, lease and link. Bounded, never raises."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._lease.close()
        await self._link.close()

    def _coordinator(self) -> str:
        """Who coordinates, for those who find our locks taken."""
        return f"{getpass.getuser()}@{platform.node()}"
