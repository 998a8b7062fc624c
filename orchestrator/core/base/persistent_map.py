"""A mapping that never changes, and of which a changed copy costs little however large it is.

The coordinator's state is replaced with every event. A copy of a dictionary would make each event
cost in proportion to the number of nodes, and a run in proportion to its square.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from dataclasses import dataclass
from itertools import chain, islice
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

BITS = 6
SIZE = 1 << BITS  # values in a chunk: near the square root of some thousands
MASK = SIZE - 1


@dataclass(frozen=True, slots=True)
class Parts(Generic[K, V]):
    """What a map is made of. Copies share chunks of ``SIZE`` values and, while they have the same
    keys, ``keys`` and ``index``, to which is only added: what a later copy added lies beyond
    ``length``.
    """

    keys: list[K]
    index: dict[K, int]
    chunks: tuple[tuple[V, ...], ...]
    length: int

    def changed(self, number: int, value: V) -> Parts[K, V]:
        at, inside = number >> BITS, number & MASK
        chunk = self.chunks[at]
        new = (*chunk[:inside], value, *chunk[inside + 1 :])
        chunks = (*self.chunks[:at], new, *self.chunks[at + 1 :])
        return Parts(self.keys, self.index, chunks, self.length)

    def grown(self, key: K, value: V) -> Parts[K, V]:
        keys, index, length = self.keys, self.index, self.length
        if len(keys) > length:  # another copy has grown already, in its own way
            keys = keys[:length]
            index = {own: number for number, own in enumerate(keys)}
        keys.append(key)
        index[key] = length
        full = not length & MASK
        last = (value,) if full else (*self.chunks[-1], value)
        chunks = (*(self.chunks if full else self.chunks[:-1]), last)
        return Parts(keys, index, chunks, length + 1)


def parts_of(items: Mapping[K, V]) -> Parts[K, V]:
    """The parts of a new map."""
    values = iter(items.values())
    chunks = tuple(tuple(islice(values, SIZE)) for _ in range(0, len(items), SIZE))
    return Parts(list(items), {key: n for n, key in enumerate(items)}, chunks, len(items))


class PersistentMap(Mapping[K, V]):
    """Keys are in the order in which they were added; none is ever removed."""

    __slots__ = ("parts",)

    def __init__(
        self, items: Mapping[K, V] | None = None, *, parts: Parts[K, V] | None = None
    ) -> None:
        self.parts: Parts[K, V] = parts if parts is not None else parts_of(items or {})

    def with_item(self, key: K, value: V) -> PersistentMap[K, V]:
        """The same with ``value`` under ``key``."""
        return PersistentMap(parts=self.changed_parts(key, value))

    def with_items(self, items: Mapping[K, V]) -> PersistentMap[K, V]:
        """The same with all of ``items``."""
        changed = self
        for key, value in items.items():
            changed = changed.with_item(key, value)
        return changed

    def changed_parts(self, key: K, value: V) -> Parts[K, V]:
        """For copies of classes that have more than their parts."""
        parts = self.parts
        number = parts.index.get(key, parts.length)
        if number < parts.length:
            return parts.changed(number, value)
        return parts.grown(key, value)

    def changed_from(self, before: PersistentMap[K, V]) -> dict[K, V]:
        """Items, in order, whose value is another object in ``before``, which has the same keys in
        the same order.
        """
        keys, chunks = self.parts.keys, zip(self.parts.chunks, before.parts.chunks, strict=True)
        return {
            keys[at * SIZE + inside]: own
            for at, (new, old) in enumerate(chunks)
            if new is not old
            for inside, (own, other) in enumerate(zip(new, old, strict=True))
            if own is not other
        }

    def __getitem__(self, key: K) -> V:
        parts = self.parts
        number = parts.index[key]
        if number >= parts.length:
            raise KeyError(key)
        return parts.chunks[number >> BITS][number & MASK]

    def __contains__(self, key: object) -> bool:
        number: int = self.parts.index.get(key, self.parts.length)  # type: ignore[arg-type]
        return number < self.parts.length

    def __iter__(self) -> Iterator[K]:
        return islice(self.parts.keys, self.parts.length)

    def __len__(self) -> int:
        return self.parts.length

    def values(self) -> ValuesView[V]:
        return _Values(self)

    def items(self) -> ItemsView[K, V]:
        return _Items(self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PersistentMap) and other.parts.index is self.parts.index:
            same = self.parts.length == other.parts.length
            return same and bool(self.parts.chunks == other.parts.chunks)
        if isinstance(other, Mapping):
            return dict(self.items()) == dict(other.items())
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # values need not have any

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self.items())!r})"


class _Values(ValuesView[V]):
    """The same without a look-up for each."""

    _mapping: PersistentMap[object, V]

    def __iter__(self) -> Iterator[V]:
        return chain.from_iterable(self._mapping.parts.chunks)


class _Items(ItemsView[K, V]):
    """Likewise."""

    _mapping: PersistentMap[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        values = chain.from_iterable(self._mapping.parts.chunks)
        return zip(self._mapping, values, strict=True)
