"""Hostfiles by the rule of each tool: kinds of lines, what the tool refuses, and made-up files.

Each kind of valid line gives the host ``{h}`` its slots; the tools agreed on all of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from orchestrator.parsing.importers.foreign_nodes import Imported

COUNT = 300
# One host each, so that all stand in one file; blanks around "=", and three kinds of comments.
OPENMPI_FORMS = (
    *("{h} slots={n}", "{h} slots = {n}", "{h} cpu={n}", "{h} count={n}", "{h} max-slots={n}"),
    *(
        "{h} slots={n} max_slots=64",
        "{h} slots={n}\n{h}",
        "{h} slots={n}\n{h}\n{h}",
        "bob@{h} slots={n}",
    ),
    *("{h} username=bob slots={n}", "{h} slots={n}#c", "{h} slots={n} // c", "# c\n{h} slots={n}"),
    *("/* {h}\n x */ {h} slots={n}", "{h}\n{h}", "{h} slots_max={n}\n{h}", "  {h}\tslots=0{n}"),
    *("{h}.lab slots={n}", "{h} slots={n}\n{h} max_slots=70", "{h} user-name=bob slots= {n}"),
)
OPENMPI_REFUSED = (
    *("n1 slots=2\nn1 slots=3\n", "n1\nn1 slots=2\n", "n1 slots=2x\n", "n[1-2] slots=2\n"),
    *("n1 slots=4 max_slots=2\n", "n1 slots=-1\n", "n1 SLOTS=2\n", "n1 slots=2 foo=3\n"),
    *("n1 slots=2\nn1.lab slots=3\n", "n1 slots=2 cpu=3\n", "n1 slots\n", "n1 slots=2 slots=2\n"),
    *("n1 slots=+2\n", "n1 slots=2;\n", 'n1 slots="2"\n', "n1 slots=2 max_slots=0\n"),
    *("a.b.c slots=1\na.b.d slots=2\n", "n1 slots=2\nn1 slots=0\n", "+n0 slots=2\n"),
    *("n1 slots=6\nn1 max_slots=4\n", "n1 max_slots=4\nn1 max_slots=4\n", "n1\nn1 max_slots=1\n"),
)
MPICH_FORMS = (
    *("{h}:{n}", "{h}", "{h}:{n} user=bob", "{h}:{n}#c", "# c\n{h}:{n}  # c", "bob@{h}:{n}"),
    *("{h}:{n}\n{h}:2", "{h}\n{h}", "{h}:{n}\n{h}b\n{h}:1", "{h}:{n}\n{h}b:3\n{h}", "  {h}:0{n}  "),
)
MPICH_REFUSED = ("n1 slots=2\n", "n1:4 foo\n", "n1:4 n2:3\n", "n1 :4\n")
DEEPSPEED_FORMS = (
    *("{h} slots={n}", "{h}\tslots={n}", "  {h}   slots=0{n}  ", "{h} slots={n}#c"),
    *("{h} slots={n}  # {h} slots=9", "# {h}x slots=9\n{h} slots={n}", "\n{h} slots={n}\n"),
    *("{h}.lab slots={n}", "bob@{h} slots={n}", "{h} slots={n}\r", "#\n   # c\n{h} slots={n}"),
)
DEEPSPEED_REFUSED = (
    *("n1\n", "n1:4\n", "n1 slots = 2\n", "n1 max-slots=4\n", "n1 SLOTS=2\n", "n1 slots=\n"),
    *("n1 slots=2\nn1 slots=2\n", "n1 slots=-1\n", "slots=2\n", "n1 user=bob slots=2\n", ""),
    *("# nothing\n", "n1 slots=2\nn2\n", "n1 cpu=2\n", "n1 # slots=2\n"),
)


def made_of(forms: tuple[str, ...], chance: random.Random, count: int = COUNT) -> str:
    """So many hosts, each by one of the kinds."""
    pieces = (
        chance.choice(forms).format(h=f"h{at}", n=chance.randint(1, 9)) for at in range(count)
    )
    return "\n".join(pieces) + "\n"


def composed_for_openmpi(chance: random.Random, count: int) -> str:
    """So many hosts whose lines are put together word by word."""
    return "".join(f"{line}\n" for at in range(count) for line in _openmpi_lines(f"h{at}", chance))


def _openmpi_lines(host: str, chance: random.Random) -> Iterator[str]:
    slots = chance.randint(1, 60)  # with repeats at most 62: more than 64 are no GPUs here
    words = [_assigned(chance.choice(("slots", "cpu", "count")), slots, chance)]
    if chance.random() < 0.3:
        names = ("max_slots", "max-slots", "slots_max", "slots-max")
        words.append(_assigned(chance.choice(names), slots + chance.randint(0, 9), chance))
    if chance.random() < 0.2:
        names = ("username", "user-name", "user_name")
        words.append(_assigned(chance.choice(names), "bob", chance))
    chance.shuffle(words)
    user, blank = chance.choice(("", "", "eve@")), chance.choice((" ", "\t", "   "))
    yield from chance.choice(((), (), ("",), ("# x slots=3",), ("/* x", "y slots=2 */")))
    ending = chance.choice(("", "", "  ", " # c", "#c", " // c"))
    yield chance.choice(("", " ")) + blank.join((f"{user}{host}", *words)) + ending
    yield from [host] * chance.choice((0, 0, 0, 1, 2))


def _assigned(key: str, value: object, chance: random.Random) -> str:
    return f"{key}{chance.choice(('=', '=', ' = ', '= ', ' ='))}{value}"


def composed_for_deepspeed(chance: random.Random, count: int) -> str:
    """Likewise."""
    return "".join(
        f"{line}\n" for at in range(count) for line in _deepspeed_lines(f"h{at}", chance)
    )


def _deepspeed_lines(host: str, chance: random.Random) -> Iterator[str]:
    yield from chance.choice(((), (), ("",), ("# x slots=3",), ("  #", " ")))
    name = chance.choice(("{h}", "{h}", "{h}.lab", "bob@{h}", "10.0.0.{h}")).format(
        h=host if chance.random() < 0.8 else f"{host}-ib"
    )
    blank = chance.choice((" ", "\t", "   ", " \t"))
    digits = f"{chance.choice(('', '', '0'))}{chance.randint(1, 60)}"
    ending = chance.choice(("", "", "  ", " # c", "#c", "\r", "# slots=3"))
    yield f"{chance.choice(('', ' '))}{name}{blank}slots={digits}{ending}"


def gpus_of(imported: Imported) -> dict[str, int]:
    """What each node was given; 0 = no figure."""
    return {node.name: int(str(node.fields.get("gpus", 0))) for node in imported.nodes}
