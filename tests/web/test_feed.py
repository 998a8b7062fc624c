"""A reader of a feed, however slow, ends with the page as it is; nothing is kept for it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.web.page_feed import MAX_MESSAGE_LINES, Cursor, Feed

KEPT = 20
# What happens to a feed: a part changes, lines are added, or the reader reads.
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("part"), st.sampled_from("ab"), st.text(max_size=3)),
        st.tuples(st.just("lines"), st.integers(1, 2 * KEPT), st.just("")),
        st.tuples(st.just("read"), st.just(""), st.just("")),
    ),
    max_size=30,
)


class Reader:
    """A browser: its parts and the lines that it got."""

    def __init__(self) -> None:
        self.seen: Cursor | None = None
        self.parts: dict[str, str] = {}
        self.lines: list[str] = []
        self.missed = 0

    def read(self, feed: Feed) -> dict[str, Any]:
        self.seen, data = feed.message(self.seen)
        message: dict[str, Any] = json.loads(data)
        self.parts.update(message["parts"])
        self.lines = ([] if message["anew"] else self.lines) + message["lines"]
        self.missed += message["missed"]
        return message


@given(CHANGES)
def test_a_reader_at_any_pace_has_the_present_page(changes: list[tuple[str, Any, str]]) -> None:
    feed, reader, parts, lines = Feed(KEPT), Reader(), {}, 0
    reader.read(feed)
    for kind, what, text in changes:
        if kind == "part":
            feed.publish({what: text})
            parts[what] = text
        elif kind == "lines":
            feed.publish({}, [str(lines + number) for number in range(what)])
            lines += what
        else:
            reader.read(feed)
        assert len(feed.lines) <= KEPT
    reader.read(feed)

    assert reader.parts == parts
    assert len(reader.lines) + reader.missed == lines
    assert reader.lines[-KEPT:] == [str(n) for n in range(lines)][-min(KEPT, len(reader.lines)) :]
    assert reader.read(feed) | {"anew": None} == {
        "parts": {},
        "lines": [],
        "missed": 0,
        "anew": None,
    }


def test_what_did_not_change_is_not_sent_again() -> None:
    feed, reader = Feed(), Reader()
    feed.publish({"head": "1", "charts": "2"})
    reader.read(feed)

    assert not feed.publish({"head": "1"})
    feed.publish({"head": "1", "charts": "3"})

    assert reader.read(feed)["parts"] == {"charts": "3"}


def test_readers_that_saw_the_same_share_one_message() -> None:
    feed = Feed()
    feed.publish({"head": "x"})

    assert feed.message(None)[1] is feed.message(None)[1]


def test_the_reader_of_another_server_begins_anew() -> None:
    feed = Feed()
    feed.publish({"head": "x"}, ["line"])
    _, data = feed.message(Cursor("0000", 7, 70))

    assert json.loads(data) == {
        "parts": {"head": "x"},
        "lines": ["line"],
        "missed": 0,
        "anew": True,
    }


def test_a_burst_is_cut_and_said() -> None:
    feed, reader = Feed(), Reader()
    feed.publish({"head": ""})
    reader.read(feed)
    feed.publish({}, ["x"] * (MAX_MESSAGE_LINES + 5))

    assert (reader.read(feed)["missed"], len(reader.lines)) == (5, MAX_MESSAGE_LINES)


def test_waiting_ends_with_a_change_or_its_limit() -> None:
    async def wait() -> tuple[bool, bool, bool]:
        feed = Feed()
        nothing = await feed.wait(feed.cursor, 0.01)
        waiting = asyncio.create_task(feed.wait(feed.cursor, 60))
        await asyncio.sleep(0)
        before = feed.cursor
        feed.publish({"head": "x"})
        return nothing, await waiting, await feed.wait(before, 60)

    assert asyncio.run(wait()) == (False, True, True)


@pytest.mark.parametrize("text", ["", "a", "a-1", "a-1-x", "a--1-2", "a-1-2-3", "x" * 999, "a-²-1"])
def test_what_is_no_cursor_is_none(text: str) -> None:
    assert Cursor.parse(text) is None


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_cursor_reads_what_it_writes(version: int, line: int) -> None:
    cursor = Cursor("ab12", version, line)

    assert Cursor.parse(str(cursor)) == cursor
