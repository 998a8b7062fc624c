"""Who can open a TCP connection to whom, and which node, port or link that puts to blame. Pure.

A matrix maps (from, to) to what went wrong, "" for a connection; pairs that were not tried, or
whose node did not answer us, are not in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from orchestrator.core.fabric.fabric_verdict import (
    MAX_NAMED,
    FabricVerdict,
    Link,
    list_names,
    reason_clause,
)

Matrix = Mapping[Link, str]
Ends = tuple[Mapping[str, Sequence[Link]], Mapping[str, Sequence[Link]]]

ALL_PAIRS = 64
MOST_PEERS = 16
# One peer less than this says as much about the link as about the node.
FEWEST_PEERS = 2


def peers_to_dial(
    names: Sequence[str], all_up_to: int = ALL_PAIRS, most: int = MOST_PEERS
) -> dict[str, tuple[str, ...]]:
    """Whom each node dials: everybody, or, of more than ``all_up_to`` nodes, at most ``most``.

    Then the distances on the ring of nodes are powers of two, and after them the smallest numbers:
    neighbours in rank order, whom rings of ranks connect, come first.
    """
    count = len(names)
    if count <= all_up_to:
        distances = list(range(1, count))
    else:
        powers = [1 << bit for bit in range(count.bit_length()) if 1 << bit < count]
        others = (distance for distance in range(3, count) if distance not in powers)
        distances = powers[:most]
        distances += [next(others) for _ in range(most - len(distances))]
    return {
        name: tuple(names[(place + distance) % count] for distance in distances)
        for place, name in enumerate(names)
    }


def failed_links(matrix: Matrix) -> list[Link]:
    """The links that failed, in the order in which they were tried."""
    return [link for link, error in matrix.items() if error]


def explain_failures(names: Sequence[str], matrix: Matrix) -> list[FabricVerdict]:
    """What explains all failed links with the fewest culprits, part by part; empty if there are
    none.
    """
    failed = failed_links(matrix)
    if not failed:
        return []
    if len(failed) == len(matrix) > 1:
        return [_nothing_works(names, matrix)]
    tried = dict(matrix)
    parts = [*_cut_off(names, tried), *_one_way(names, tried)]
    groups = _connected_groups(names, tried)
    return [*parts, *([_split_verdict(groups, tried)] if groups else _link_verdicts(tried))]


def judge_matrix(names: Sequence[str], matrix: Matrix) -> FabricVerdict | None:
    """All of :func:`explain_failures` in one sentence; None if no link failed."""
    parts = explain_failures(names, matrix)
    if not parts:
        return None
    told = [part.sentence for part in parts[:MAX_NAMED]]
    told += [f"and {len(parts) - MAX_NAMED} more"] if len(parts) > MAX_NAMED else []
    return FabricVerdict(
        sentence="; ".join(told),
        culprits=tuple(name for part in parts for name in part.culprits),
        links=tuple(link for part in parts for link in part.links),
    )


def _nothing_works(names: Sequence[str], matrix: Matrix) -> FabricVerdict:
    why = reason_clause(_first_error(matrix))
    if len(names) == FEWEST_PEERS:
        what = f"{names[0]} and {names[1]} cannot open a TCP connection to each other{why}"
        return FabricVerdict(
            sentence=f"{what}: the link between them is cut, or one of their ports",
            links=tuple(matrix),
        )
    return FabricVerdict(
        sentence=f"none of {list_names(names)} can open a TCP connection to another{why}: the "
        "network between the nodes, or a firewall on all of them, is at fault",
        links=tuple(matrix),
    )


def _cut_off(names: Sequence[str], tried: dict[Link, str]) -> list[FabricVerdict]:
    """Nodes that reach nobody and are reached by nobody, though others reach each other. What they
    explain is taken out of ``tried``.
    """
    at = _by_end(tried)
    dead = {name for name in names if _all_failed(_links_around(name, at, tried))}
    alive = [name for name in names if name not in dead]
    met = {name: _nodes_met(name, at, alive) for name in names if name in dead}
    found = {name: others for name, others in met.items() if others}
    parts = [
        _cut_off_node(name, others, _first_error(_links_around(name, at, tried)), tried)
        for name, others in found.items()
    ]
    for link in [link for link in tried if found.keys() & set(link)]:
        del tried[link]
    return parts


def _cut_off_node(name: str, others: Sequence[str], error: str, tried: Matrix) -> FabricVerdict:
    between = [error for link, error in tried.items() if set(others).issuperset(link)]
    works = "reach each other" if between and not any(between) else "reach other nodes"
    return FabricVerdict(
        sentence=f"{name} cannot open a TCP connection to {list_names(others)}, which {works}"
        f"{reason_clause(error)}: the node or its port is at fault",
        culprits=(name,),
    )


def _one_way(names: Sequence[str], tried: dict[Link, str]) -> list[FabricVerdict]:
    """Nodes that nobody reaches though they may reach others, or the other way round. What they
    explain is taken out of ``tried``.
    """
    parts: list[FabricVerdict] = []
    at = _by_end(tried)
    for end in (1, 0):
        for name in names:
            mine = {link: tried[link] for link in at[end].get(name, ()) if link in tried}
            if len(mine) >= FEWEST_PEERS and _all_failed(mine):
                others = at[1 - end].get(name, ())
                back = [link[end] for link in others if link in tried and not tried[link]]
                sentence = _kept_out(name, back, mine) if end else _kept_in(name, back, mine)
                parts.append(FabricVerdict(sentence=sentence, culprits=(name,)))
                for link in mine:
                    del tried[link]
    return parts


def _kept_out(name: str, back: Sequence[str], failed: Matrix) -> str:
    text = f"no node can open a TCP connection to {name}{reason_clause(_first_error(failed))}"
    text += f", though it reaches {list_names(back)}" if back else ""
    return f"{text}: a firewall on it, or its port, keeps incoming connections out"


def _kept_in(name: str, back: Sequence[str], failed: Matrix) -> str:
    text = f"{name} can open a TCP connection to no node{reason_clause(_first_error(failed))}"
    text += f", though it is reached by {list_names(back)}" if back else ""
    return f"{text}: a firewall on it, or its port, keeps outgoing connections in"


def _connected_groups(names: Sequence[str], tried: Matrix) -> list[list[str]]:
    """The groups of nodes within which all links work and between which none does; empty unless
    there are such, of two nodes or more each.
    """
    above = {name: name for name in names}

    def top(name: str) -> str:
        while above[name] != name:
            above[name] = above[above[name]]
            name = above[name]
        return name

    for (start, end), error in tried.items():
        if not error:
            above[top(end)] = top(start)
    if any(bool(error) != (top(a) != top(b)) for (a, b), error in tried.items()):
        return []
    met = {name for link in tried for name in link}
    groups: dict[str, list[str]] = {}
    for name in names:
        if name in met:
            groups.setdefault(top(name), []).append(name)
    apart = list(groups.values())
    return apart if len(apart) > 1 and all(len(g) >= FEWEST_PEERS for g in apart) else []


def _split_verdict(groups: Sequence[Sequence[str]], tried: Matrix) -> FabricVerdict:
    apart = " | ".join(list_names(group) for group in groups)
    return FabricVerdict(
        sentence="the nodes fall into groups that cannot open TCP connections to each other: "
        f"{apart}{reason_clause(_first_error(tried))}: what connects the groups is at fault",
        links=tuple(failed_links(tried)),
    )


def _link_verdicts(tried: Matrix) -> Iterator[FabricVerdict]:
    """One part for each link that is left, or for both its directions."""
    failed = dict.fromkeys(failed_links(tried))
    for start, end in failed:
        back = (end, start)
        why = reason_clause(tried[start, end])
        if back not in failed:
            text = f"{start} cannot open a TCP connection to {end}{why}"
            if back in tried:
                text += f", though {end} reaches {start}: the link is broken in one direction"
            yield FabricVerdict(sentence=text, links=((start, end),))
        elif start < end:
            text = f"{start} and {end} cannot open a TCP connection to each other{why}"
            yield FabricVerdict(
                sentence=f"{text}, but reach other nodes: the link between them is at fault",
                links=((start, end), back),
            )


def _by_end(tried: Matrix) -> Ends:
    """The links that begin, and those that end, at each node."""
    out: dict[str, list[Link]] = {}
    into: dict[str, list[Link]] = {}
    for link in tried:
        out.setdefault(link[0], []).append(link)
        into.setdefault(link[1], []).append(link)
    return out, into


def _links_around(name: str, at: Ends, tried: Matrix) -> Matrix:
    out, into = at
    return {link: tried[link] for link in (*out.get(name, ()), *into.get(name, ()))}


def _all_failed(part: Matrix) -> bool:
    return bool(part) and all(part.values())


def _first_error(matrix: Matrix) -> str:
    return next(error for error in matrix.values() if error)


def _nodes_met(name: str, at: Ends, among: Collection[str]) -> list[str]:
    """The nodes among ``among`` that tried ``name`` or that it tried; none unless it has a word of
    its own and they are enough to tell a node from a link.
    """
    out = {end for _, end in at[0].get(name, ())}
    into = {start for start, _ in at[1].get(name, ())}
    met = [other for other in among if other in out | into]
    return met if out and into and len(met) >= FEWEST_PEERS else []
