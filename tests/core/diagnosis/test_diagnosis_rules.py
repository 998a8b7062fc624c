"""The rules themselves: sound as data, and harmless to run on whatever a log holds."""

from __future__ import annotations

import re
import string
import time
from collections.abc import Iterator
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.core.diagnosis import cleaning, line_times, matching, signs, tracebacks
from orchestrator.core.diagnosis.diagnosis_model import LogRole, LogSource, Rule
from orchestrator.core.diagnosis.line_prefixes import (
    BRACKETED,
    NUMBERED,
    OTHER,
    PARENTHESISED,
    WORDED,
    read_head,
)
from orchestrator.core.diagnosis.matching import match_rules
from orchestrator.core.diagnosis.observations import OBSERVED
from orchestrator.core.diagnosis.rules import DOMAINS, RULES

HOSTILE = 16 << 10
# A pattern takes a few milliseconds for such a line; one that is quadratic, many seconds.
LIMIT_S = 0.5
MAX_REPEAT = 400
ID = re.compile(r"[A-Z][A-Z0-9]*(-[A-Z0-9]+)*-\d{3}")

PATTERNS: dict[str, list[re.Pattern[str]]] = {
    rule.id: [
        pattern
        for sign in rule.signs
        for pattern in (sign.pattern, sign.frames, sign.around)
        if pattern is not None
    ]
    for rule in RULES
}
PATTERNS["observed"] = [
    sign.pattern for some in OBSERVED.values() for sign in some if sign.pattern is not None
]
PATTERNS |= {
    f"prefix/{pattern[:40]}": [re.compile(pattern)]
    for pattern in (*BRACKETED, *PARENTHESISED, *NUMBERED, *WORDED, *OTHER)
}
PATTERNS |= {
    module.__name__.rpartition(".")[2]: [
        value for value in vars(module).values() if isinstance(value, re.Pattern)
    ]
    for module in (tracebacks, cleaning, signs, matching)
}
PATTERNS["times"] = list(line_times._TIMES)


def test_ids_are_stable_names_and_unique() -> None:
    """An id names one rule for ever: in documents, results and scripts."""
    ids = [rule.id for rule in RULES]

    assert len(set(ids)) == len(ids)
    assert all(ID.fullmatch(name) for name in ids)
    assert all(DOMAINS.values())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_says_what_it_needs_to(rule: Rule) -> None:
    """Title, cause, remedy and a reference; each blank of the sentences can be filled in."""
    assert rule.title
    assert rule.remedy
    assert rule.references
    assert 1 <= rule.weight <= 100
    blanks = {name for text in (rule.cause, rule.remedy) for name in _blanks(text)}
    assert blanks <= {"who", "where", *rule.defaults}
    assert bool(rule.consequence) == (rule.role in {LogRole.VICTIM, LogRole.VAGUE, LogRole.STOPPED})


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_what_a_pattern_catches_is_used(rule: Rule) -> None:
    """A group that fills no blank and names nobody is a mistake in its name."""
    patterns = [pattern for s in rule.signs for pattern in (s.pattern, s.around) if pattern]
    caught = {name for pattern in patterns for name in pattern.groupindex}
    blanks = {name for text in (rule.cause, rule.remedy) for name in _blanks(text)}

    assert caught <= blanks | {"rank", "local_rank", "node", "target", "pid"}


def _blanks(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


@pytest.mark.parametrize("name", PATTERNS)
def test_every_repetition_is_bounded(name: str) -> None:
    """No pattern can look at more than a few hundred characters from where it began."""
    for pattern in PATTERNS[name]:
        repeats = list(_repeats(_parser.parse(pattern.pattern, pattern.flags)))

        assert all(most is not _constants.MAXREPEAT and most <= MAX_REPEAT for most in repeats)


def _repeats(parsed: Any) -> Iterator[Any]:
    """The upper bound of each repetition, wherever it is nested."""
    for operator, argument in parsed:
        if operator in {_constants.MAX_REPEAT, _constants.MIN_REPEAT}:
            yield argument[1]
        yield from _nested(argument)


def _nested(argument: Any) -> Iterator[Any]:
    if isinstance(argument, _parser.SubPattern):
        yield from _repeats(argument)
    elif isinstance(argument, list | tuple):
        for part in argument:
            yield from _nested(part)


@pytest.mark.parametrize("name", PATTERNS)
def test_hostile_lines_take_linear_time(name: str) -> None:
    """16 kB made of a pattern's own words, in any rhythm, do not hold the reader up."""
    for pattern in PATTERNS[name]:
        for line in _hostile(_words(pattern.pattern)):
            # Usually 10 ms at most. A collection of garbage may fall into one of two tries.
            slow = _seconds(pattern, line) >= LIMIT_S and _seconds(pattern, line) >= LIMIT_S
            assert not slow, line[:80]


def _seconds(pattern: re.Pattern[str], line: str) -> float:
    """Of this thread: others of this process may be busy with what earlier tests left."""
    begin = time.thread_time()
    list(pattern.finditer(line))
    return time.thread_time() - begin


def _words(pattern: str) -> list[str]:
    """What its literals look like to somebody who wants to mislead it."""
    plain = re.sub(r"\(\?P<\w+>|\(\?[:!=]|\\[bdwsS]|\{\d*,?\d*\}|\[[^\]]*\]", "\0", pattern)
    plain = plain.replace("\\", "")
    return [word for word in re.split(r"[\0|()?^$]", plain) if word] or ["x"]


def _hostile(words: list[str]) -> Iterator[str]:
    yield (" ".join(words) * HOSTILE)[:HOSTILE]
    yield (words[0] * HOSTILE)[:HOSTILE]
    yield ("".join(word + "1 a:" for word in words) * HOSTILE)[:HOSTILE]
    yield (words[0] + words[-1][:-1] * HOSTILE)[:HOSTILE]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_mixture_of_signs_is_read_in_bounded_time(data: st.DataObject) -> None:
    """Lines that hold the words of many rules at once, with or without ends, are examined."""
    texts = sorted({sign.text for rule in RULES for sign in rule.signs})
    some = data.draw(st.lists(st.sampled_from(texts), min_size=1, max_size=12))
    glue = data.draw(st.sampled_from([" ", "\n", "\r", ": ", "\x00", " 1 "]))
    stretch = (glue.join(some) * HOSTILE)[:HOSTILE]

    begin = time.thread_time()
    found = match_rules(stretch, LogSource(name="x"))
    assert time.thread_time() - begin < 40 * LIMIT_S
    assert all(1 <= clue.line <= stretch.count("\n") + 1 for clue in found.clues)
    assert all(len(clue.text) <= 400 for clue in found.clues)


@given(st.text(max_size=300))
def test_no_line_breaks_the_reader(line: str) -> None:
    """Prefixes and times of any text are read, or there are none."""
    head = read_head(line)
    at = line_times.read_time(line)

    assert head.text in line
    assert at is None or 0 <= at < line_times.YEAR_S + 32 * 86_400


def test_program_text_in_a_traceback_is_no_evidence() -> None:
    """A comment that quotes an error did not happen; the exception below it did."""
    log = (
        "Traceback (most recent call last):\n"
        '  File "train.py", line 5, in <module>\n'
        "    raise ValueError('bad')  # was: torch.OutOfMemoryError: CUDA out of memory. Tried to\n"
        "ValueError: bad\n"
    )
    source = LogSource(name="rank-1.err", node="n1", rank=1)
    assert not [c for c in match_rules(log, source).clues if c.rule.id.startswith("CUDA-OOM")]
    bare = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
    assert [c for c in match_rules(bare, source).clues if c.rule.id.startswith("CUDA-OOM")]


_REJECTED = "ERROR 02-10 11:02:13 [serving.py:120] ValueError: the prompt has 9001 tokens\n"


@pytest.mark.parametrize(
    "below, blamed",
    [
        ('INFO:     192.0.2.9:510 - "POST /v1/completions HTTP/1.1" 400 Bad Request\n', False),
        ('INFO:     192.0.2.9:510 - "POST /v1/completions HTTP/1.1" 500 Internal\n', True),
        ('[rank1]: INFO: 192.0.2.9:510 - "POST /v1/x HTTP/1.1" 400 Bad Request\n', True),
        ("\n" * 9 + 'INFO: 192.0.2.9:510 - "POST /v1/x HTTP/1.1" 400 Bad Request\n', True),
        ('HTTP Request: POST http://h/v1/x "HTTP/1.1 400 Bad Request"\n', True),  # the client's
    ],
)
def test_what_a_server_refused_is_the_mistake_of_its_client(below: str, blamed: bool) -> None:
    """Only where the same writer answers so at once: a failure of its own is none of a client."""
    traceback = (
        "Traceback (most recent call last):\n"
        '  File "/s/serving.py", line 120, in check\n    raise ValueError(words)\n'
        "ValueError: the prompt has 9001 tokens\n"
    )
    for raised in (_REJECTED, traceback):
        assert bool(match_rules(raised + below, LogSource(name="s.log")).clues) is blamed
