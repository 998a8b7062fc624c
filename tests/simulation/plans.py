"""From a seed to a plan: every kind of fault, alone and mixed, at the moments that matter."""

from __future__ import annotations

import random
from dataclasses import replace

from tests.simulation.coordinator import CrashPoint
from tests.simulation.faults import Fault
from tests.simulation.simulation import BUDGETS, SimulationPlan
from tests.simulation.supervisor import Script
from tests.simulation.world import Tenant

NODE_FAULTS = (
    "reboot kill-agent kill-agent kill-supervisor kill-rank freeze-rank cut cut cut-down cut-up "
    "reset reset full-disk slow delay duplicate jump refuse"
).split()
COORDINATOR_FAULTS = (
    "kill kill kill freeze take-over take-over rival "
    "sigint sigint sigterm full-own-disk jump-own-clock"
).split()
CRASH_KINDS = (
    "before a write",
    "within a write",
    "after a write",
    "before an action",
    "after an action",
    "sent",
    "executed",
    "answered",
)
BENIGN_SHARE = 0.25
BENIGN = (
    ("kill-agent", 0.0, 0.0),
    ("reset", 0.0, 0.0),
    ("cut", 1.0, 0.0),
    ("duplicate", 20.0, 0.0),
    ("jump", 0.0, -3600.0),
    ("jump", 0.0, 3600.0),
    ("jump-own-clock", 0.0, -3600.0),
    ("jump-own-clock", 0.0, 3600.0),
    # The first ones are so short that even a short lease outlives them.
    ("kill-agent", 0.0, 0.0),
    ("reset", 0.0, 0.0),
    ("cut", 4.0, 0.0),
    ("cut-up", 3.0, 0.0),
    ("cut-down", 3.0, 0.0),
    ("delay", 5.0, 0.2),
    ("slow", 5.0, 4.0),
    ("kill", 0.0, 0.0),
)
STEADY = 8


def plan_of(seed: int) -> SimulationPlan:
    """Small worlds: one to four nodes, a few ranks, a few faults, all healed in the end."""
    source = random.Random(seed)
    if source.random() < BENIGN_SHARE:
        return _benign(source, seed)
    return _any(source, seed)


def _benign(source: random.Random, seed: int) -> SimulationPlan:
    """Broken links, dead agents and dead coordinators, each for less than the run can bear: with
    a short lease the coordinator lives, and no cut is long.
    """
    names = tuple("abc"[: source.choice((1, 2, 2, 3))])
    steady = source.random() < 0.3
    faults = []
    for _ in range(source.choice((1, 2, 3, 5))):
        kind, for_s, amount = source.choice(BENIGN[:STEADY] if steady else BENIGN)
        at_s = source.uniform(0.0, source.choice((0.4, 2.0, 8.0)))
        node = "" if kind in ("kill", "jump-own-clock") else source.choice(names)
        faults.append(Fault(at_s=round(at_s, 3), kind=kind, node=node, for_s=for_s, amount=amount))
    script = replace(_script(source, len(names)), fails=())
    crashes = [CrashPoint(source.choice(CRASH_KINDS), source.randrange(40)) for _ in range(2)]
    return SimulationPlan(
        seed=seed,
        nodes=names,
        gpus=source.choice((0, 1)),
        with_torch=source.random() < 0.5,
        script=replace(script, steps=8, step_s=1.0) if steady else script,
        budgets=replace(BUDGETS, lease_s=5.0 if steady else source.choice((30.0, None))),
        faults=tuple(sorted(faults, key=lambda fault: fault.at_s)),
        crashes=() if steady else tuple(crashes[: source.choice((1, 1, 2))]),
        silently=source.random() < 0.5,
        heal_s=20.0,
        pause_s=source.choice((0.01, 0.5, 2.0)),
        benign=True,
    )


def _any(source: random.Random, seed: int) -> SimulationPlan:
    names = tuple("abcd"[: source.choice((1, 2, 2, 2, 2, 3, 3, 4))])
    ranks = source.choice((1, 1, 2)) if len(names) < 3 else 1
    gpus = source.choice((0, 0, 1, 2))
    crashes = tuple(
        CrashPoint(source.choice(CRASH_KINDS), source.randrange(45))
        for _ in range(source.choice((0, 0, 0, 0, 1, 1, 2, 3)))
    )
    heal_s = source.choice((8.0, 20.0, 40.0)) * source.uniform(0.6, 1.2)
    return SimulationPlan(
        seed=seed,
        nodes=names,
        ranks_per_node=ranks,
        gpus=gpus,
        with_torch=source.random() < 0.7,
        script=_script(source, len(names) * ranks),
        budgets=replace(BUDGETS, lease_s=source.choice((5.0, 12.0, 12.0, 30.0, None))),
        exclusive=source.random() < 0.2,
        wait_s=source.choice((None, None, 5.0, 60.0)),
        tenants=_tenants(source, names),
        faults=tuple(_faults(source, names, heal_s)),
        crashes=crashes,
        silently=source.random() < 0.3,
        heal_s=heal_s,
        pause_s=source.choice((0.01, 0.5, 3.0, 10.0, 25.0)),
        insist=source.random() < 0.8,
        stop=source.random() < 0.1,
    )


def _script(source: random.Random, world_size: int) -> Script:
    steps = source.randint(2, 8)
    fails = [
        (attempt, source.randrange(world_size), source.randint(1, steps))
        for attempt in (1, 2)
        if source.random() < 0.08
    ]
    return Script(
        steps=steps,
        step_s=source.choice((0.1, 0.3, 0.5, 1.0)),
        checkpoint_every=source.choice((1, 2, 3)),
        fails=tuple(fails),
        coupled=source.random() < 0.7,
        stubborn=(0,) if source.random() < 0.15 else (),
        strays=source.random() < 0.3,
    )


def _tenants(source: random.Random, names: tuple[str, ...]) -> tuple[Tenant, ...]:
    if source.random() < 0.75:
        return ()
    until_s = source.choice((None, 2.0, 15.0))
    lock, shared = source.choice((("machine", True), ("gpu-0", False)))
    return (Tenant(node=source.choice(names), lock=lock, shared=shared, until_s=until_s),)


def _faults(source: random.Random, names: tuple[str, ...], heal_s: float) -> list[Fault]:
    faults: list[Fault] = []
    for _ in range(source.choice((0, 1, 1, 1, 2, 2, 3, 4, 6))):
        faults += _some(source, names, heal_s)
    if source.random() < 0.1:
        faults += _swizzle(source, names, source.uniform(0.0, heal_s / 2))
    if source.random() < 0.15:
        faults.append(
            Fault(at_s=0.0, kind="rate", node=names[0], amount=source.uniform(0.98, 1.02))
        )
    return sorted((f for f in faults if f.at_s < heal_s), key=lambda fault: fault.at_s)


def _some(source: random.Random, names: tuple[str, ...], heal_s: float) -> list[Fault]:
    latest_s = source.choice((0.6, 6.0, heal_s))
    at_s = round(source.uniform(0.0, min(latest_s, heal_s)), 3)
    for_s = round(source.choice((0.3, 2.0, 5.0, 12.0, 30.0)) * source.uniform(0.5, 1.5), 3)
    if source.random() < 0.65:
        kind = source.choice(NODE_FAULTS)
        amount = {
            "slow": source.choice((3.0, 20.0, 100.0)),
            "delay": source.choice((0.05, 0.5, 2.0)),
            "jump": source.choice((-3600.0, -5.0, 5.0, 3600.0)),
        }.get(kind, 0.0)
        node = source.choice(names)
        return [Fault(at_s=at_s, kind=kind, node=node, for_s=for_s, amount=amount)]
    kind = source.choice(COORDINATOR_FAULTS)
    amount = source.choice((-3600.0, -5.0, 5.0, 3600.0)) if kind == "jump-own-clock" else 0.0
    times = source.choice((1, 1, 2, 3)) if kind.startswith("sig") else 1
    gap_s = source.choice((0.001, 0.5, 4.0))
    return [
        Fault(at_s=round(at_s + gap_s * i, 3), kind=kind, for_s=for_s, amount=amount)
        for i in range(times)
    ]


def _swizzle(source: random.Random, names: tuple[str, ...], at_s: float) -> list[Fault]:
    """Links stop one by one and come back in another order."""
    stop, heal = list(names), list(names)
    source.shuffle(stop)
    source.shuffle(heal)
    gap_s = source.uniform(0.1, 3.0)
    return [
        Fault(
            at_s=round(at_s + gap_s * i, 3),
            kind="cut",
            node=name,
            for_s=round(gap_s * (len(names) - i + heal.index(name)), 3),
        )
        for i, name in enumerate(stop)
    ]
