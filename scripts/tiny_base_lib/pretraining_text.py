"""The text that the small base model learns from: forms, and chats in which they are filled in.

A request holds the noun of a form's name and mentions values, among words without meaning; the
answer is the filled-in form as JSON. So the base learns words and their kinds (lima is a city),
numbers, on and off, the chat format, and to copy. Tools, tool calls and the requests of the data
set do not occur.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from finetune.data import generated_conversations as requests
from finetune.data.tool_catalogue import Catalogue, JsonValue

MAX_FIELDS = 3
MAX_OTHER_FORMS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A prompt in the chat format and the answer to it."""

    prompt: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a form, its value, and the words that mention the value in the request."""

    name: str
    json_type: str
    value: JsonValue
    mention: tuple[str, ...]


def vocabulary_text(catalogue: Catalogue) -> Iterator[str]:
    """Yield text in which everything that should become a single token occurs."""
    yield json.dumps({"name": "a", "arguments": {"b": "c"}, "d": [True, False] * 20})
    yield from (" ".join(f"{n:02d} {n / 10:.1f}" for n in range(100)),) * 2
    yield from (" ".join(words_of(catalogue)),) * 2
    yield from (" ".join(f"_{verb}" for verb in _verbs(catalogue)),) * 2
    yield from (json.dumps(tool.schema()) for tool in catalogue.tools)


def words_of(catalogue: Catalogue) -> list[str]:
    """Return every word that requests, tools and values consist of, sorted."""
    texts = [" ".join(pool) for pool in catalogue.pools.values()]
    texts += requests.OPENERS + requests.HELD_OUT_OPENERS
    texts += requests.CLOSERS + requests.HELD_OUT_CLOSERS
    for tool in catalogue.tools:
        texts += [tool.name, tool.description, *tool.arguments]
        texts += tool.wordings + tool.held_out_wordings
    words = {word for text in texts for word in re.findall("[a-z]+", text)}
    return sorted(words | {"on", "off", "yes", "no"})


def _verbs(catalogue: Catalogue) -> list[str]:
    """The second halves of tool names, like `get` in weather_get; form names end in them too."""
    return sorted({tool.name.partition("_")[2] for tool in catalogue.tools})


def generate_chats(catalogue: Catalogue, seed: int) -> Iterator[Chat]:
    """Yield endlessly many chats, a pure function of the arguments."""
    random = Random(f"{seed}-pretraining")
    values = {word for pool in catalogue.pools.values() for word in pool}
    plain = [word for word in words_of(catalogue) if word not in values]
    while True:
        yield _chat(catalogue, plain, random)


def _chat(catalogue: Catalogue, plain: list[str], random: Random) -> Chat:
    fields = _fields(catalogue, plain, random)
    noun = random.choice(plain)
    name = _form_name(noun, catalogue, random)
    forms = [f"{name}({', '.join(f'{field.name}: {field.json_type}' for field in fields)})"]
    forms += [
        _unused_form(catalogue, plain, random) for _ in range(random.randint(1, MAX_OTHER_FORMS))
    ]
    random.shuffle(forms)
    listed = "".join(f"{form}\n" for form in forms)
    prompt = (
        f"<|im_start|>system\n{listed}<|im_end|>\n"
        f"<|im_start|>user\n{_request(noun, fields, plain, random)}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    filled = {"form": name, "fields": {field.name: field.value for field in fields}}
    return Chat(prompt=prompt, answer=json.dumps(filled) + "<|im_end|>")


def _request(noun: str, fields: list[Field], plain: list[str], random: Random) -> str:
    """The noun and the mentions in any order, with up to three other words between them."""
    parts = [(noun,), *(field.mention for field in fields)]
    words = []
    for part in random.sample(parts, len(parts)):
        words += [*random.choices(plain, k=random.randint(0, 3)), *part]
    return " ".join(words + random.choices(plain, k=random.randint(0, 2)))


def _unused_form(catalogue: Catalogue, plain: list[str], random: Random) -> str:
    names = random.choices([*catalogue.pools, *plain], k=random.randint(1, MAX_FIELDS))
    form = _form_name(random.choice(plain), catalogue, random)
    return f"{form}({', '.join(f'{name}: {_some_type(random)}' for name in names)})"


def _form_name(noun: str, catalogue: Catalogue, random: Random) -> str:
    return f"{noun}_{random.choice(_verbs(catalogue))}"


def _some_type(random: Random) -> str:
    return random.choice(("string", "integer"))


def _fields(catalogue: Catalogue, plain: list[str], random: Random) -> list[Field]:
    """Draw one to three fields with different names, and words of different kinds."""
    fields: dict[str, Field] = {}
    for kind in random.sample(list(catalogue.pools), random.randint(1, MAX_FIELDS)):
        bare_integer = all(field.json_type != "integer" for field in fields.values())
        field = _field(catalogue, kind, plain, random, bare_integer=bare_integer)
        fields.setdefault(field.name, field)
    return list(fields.values())


def _field(
    catalogue: Catalogue, kind: str, plain: list[str], random: Random, *, bare_integer: bool
) -> Field:
    """A word is mentioned alone if the field is named after its kind; else the name stands by it.

    `bare_integer` allows an integer to be mentioned alone: it is the only one so far.
    """
    name = random.choice(plain)
    json_type = random.choices(("string", "integer", "boolean", "number"), (60, 24, 10, 6))[0]
    value: JsonValue
    mention: tuple[str, ...]
    if json_type == "string":
        value = random.choice(catalogue.pools[kind])
        alone = random.random() < 0.7
        name, mention = (kind, (value,)) if alone else (name, (name, value))
    elif json_type == "boolean":
        value = random.random() < 0.5
        mention = (name, random.choice(("on", "yes") if value else ("off", "no")))
    else:
        value = random.randint(1, 99)
        if json_type == "number":
            value = random.randint(10, 99) / 10
        mentions: list[tuple[str, ...]] = [(name, str(value)), (str(value), name)]
        if json_type == "integer" and bare_integer:
            mentions.append((str(value),))
        mention = random.choice(mentions)
    return Field(name=name, json_type=json_type, value=value, mention=mention)
