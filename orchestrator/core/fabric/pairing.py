"""Collectives between pairs of nodes, in rounds, and which node or link they put to blame. Pure.

The first rounds pair neighbours on the ring of nodes, n/2 pairs at once. Once a pair failed, every
suspect, of that pair or left over, is paired with nodes that proved good, until two failed with it
or one did not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from orchestrator.core.fabric.fabric_verdict import (
    MAX_NAMED,
    FabricVerdict,
    Link,
    list_names,
    reason_clause,
)

# A pair of nodes -> what went wrong with its collective, "" for nothing.
Results = Mapping[Link, str]

MAX_ROUNDS = 4
# So many partners tell a node that fails from a link that does.
ENOUGH = 2


def next_round(names: Sequence[str], results: Results, number: int) -> list[Link]:
    """The disjoint pairs to try as round ``number``, from 0; empty when all is known that pairs can
    tell, or enough was tried.
    """
    good = proven_nodes(names, results)
    failed = {pair for pair, error in results.items() if error}
    if number >= MAX_ROUNDS:
        return []
    if not good or not failed:
        return _ring_neighbours(names, number)
    suspects = [name for name in names if name not in good]
    suspects.sort(key=lambda name: not _partners_of(name, failed))
    pairs: list[Link] = []
    for name in suspects:
        met = _partners_of(name, failed)
        partner = next((other for other in good if other not in met), None)
        if len(met) < ENOUGH and partner is not None:
            good.remove(partner)
            pairs.append((partner, name))
    return pairs


def proven_nodes(names: Sequence[str], results: Results) -> list[str]:
    """The nodes that took part in a collective that came to its end."""
    good = {name for pair, error in results.items() if not error for name in pair}
    return [name for name in names if name in good]


def _ring_neighbours(names: Sequence[str], number: int) -> list[Link]:
    """Every second link of the ring of nodes, then the others; of an odd number, one is left."""
    count = len(names)
    ring = [(names[at], names[(at + 1) % count]) for at in range(count if count > ENOUGH else 1)]
    last = [ring.pop()] if count % 2 else []
    rounds = [ring[::2], ring[1::2], last]
    return rounds[number] if number < len(rounds) else []


def _partners_of(name: str, pairs: Collection[Link]) -> list[str]:
    return [other for pair in pairs if name in pair for other in pair if other != name]


def judge_pairs(names: Sequence[str], results: Results, together: str) -> FabricVerdict:
    """Who is to blame for an all-reduce over all nodes that failed; ``together`` says how."""
    failed = {pair: error for pair, error in results.items() if error}
    good = set(proven_nodes(names, results))
    if not failed:
        return _only_together(len(names), len(results), together)
    if not good:
        return _nobody_completes(names, failed)
    blamed = [name for name in names if _is_guilty(name, good, failed)]
    parts = [_blame_node(name, good, failed) for name in blamed]
    left = {pair: error for pair, error in failed.items() if not set(blamed).intersection(pair)}
    parts += [_blame_link(pair, error) for pair, error in left.items()]
    told = [part.sentence for part in parts[:MAX_NAMED]]
    told += [f"and {len(parts) - MAX_NAMED} more"] if len(parts) > MAX_NAMED else []
    return FabricVerdict(
        sentence="; ".join(told),
        culprits=tuple(name for part in parts for name in part.culprits),
        links=tuple(link for part in parts for link in part.links),
    )


def _is_guilty(name: str, good: Collection[str], failed: Results) -> bool:
    """It never proved good itself, and failed with several, of whom one did."""
    met = set(_partners_of(name, failed))
    return name not in good and len(met) >= ENOUGH and bool(met.intersection(good))


def _only_together(nodes: int, pairs: int, together: str) -> FabricVerdict:
    sentence = (
        f"each of {pairs} pairs of nodes completes an all-reduce, all {nodes} together do not"
    )
    return FabricVerdict(sentence=sentence + reason_clause(together))


def _nobody_completes(names: Sequence[str], failed: Results) -> FabricVerdict:
    why = reason_clause(next(iter(failed.values())))
    if len(names) == ENOUGH:
        return FabricVerdict(
            sentence=f"{list_names(names)} open TCP connections to each other, but do not complete "
            f"an all-reduce{why}",
            links=tuple(failed),
        )
    return FabricVerdict(
        sentence=f"the nodes open TCP connections to each other, but no pair "
        f"of {list_names(names)} completes an all-reduce{why}: what they have in common is "
        "at fault",
    )


def _blame_node(name: str, good: Collection[str], failed: Results) -> FabricVerdict:
    partners = [other for other in _partners_of(name, failed) if other in good]
    error = next(error for pair, error in failed.items() if name in pair)
    others = "which completes" if len(partners) == 1 else "which complete"
    return FabricVerdict(
        sentence=f"{name} does not complete an all-reduce with {list_names(partners)}, {others} "
        f"one with other nodes{reason_clause(error)}: the node, its adapter or its port is "
        "at fault",
        culprits=(name,),
    )


def _blame_link(pair: Link, error: str) -> FabricVerdict:
    return FabricVerdict(
        sentence=f"{pair[0]} and {pair[1]} do not complete an all-reduce with each other, but do "
        f"so with other nodes{reason_clause(error)}: the link between them is at fault",
        links=(pair,),
    )
