"""Conversations as tokens: what the model reads, and which tokens it is taught to write."""

from __future__ import annotations

import hashlib
import json
from array import array
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.settings import Settings
from .generated_conversations import Conversation, generate_conversations
from .tool_catalogue import load_catalogue

MAX_LINE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One conversation in tokens; `is_target` holds a 1 for those of assistant turns, else a 0.

    Compact, because a run on many GPUs keeps tens of millions of tokens on every rank.
    """

    tokens: array[int]
    is_target: bytes
    prompt: str  # everything before the last assistant turn, ready to be continued
    answer: str  # the last assistant turn


def load_conversations(settings: Settings) -> tuple[list[Conversation], list[Conversation]]:
    """Return (training, held-out) conversations, from the file or generated.

    Of a file, the conversations with the smallest digests are held out: the choice depends on
    their content alone, not on their order. Raises `ValueError` naming the line that is wrong.
    """
    if settings.dataset:
        return _split_by_digest(_read(Path(settings.dataset)), settings.eval_conversations)
    catalogue = load_catalogue()
    training, held_out = settings.train_conversations, settings.eval_conversations
    return (
        list(generate_conversations(catalogue, training, settings.seed, held_out=False)),
        list(generate_conversations(catalogue, held_out, settings.seed, held_out=True)),
    )


def encode(conversation: Conversation, tokenizer: Any) -> Example:
    """Render with the chat template and mark the assistant turns.

    The text is cut where assistant turns begin and end and each piece is tokenised by itself, so
    the prompt has the same tokens here as when it is generated from.
    """
    tokens = array("i")
    is_target = bytearray()
    prompt = answer = done = ""
    for prompt, answer in _assistant_turns(conversation, tokenizer):
        for piece, target in ((prompt.removeprefix(done), False), (answer, True)):
            ids = tokenizer(piece, add_special_tokens=False)["input_ids"]
            tokens.extend(ids)
            is_target.extend([target] * len(ids))
        done = prompt + answer
    return Example(tokens=tokens, is_target=bytes(is_target), prompt=prompt, answer=answer)


def digest_conversations(conversations: Iterable[Conversation]) -> str:
    """Identity of a list of conversations, for comparing what ranks have read."""
    digest = hashlib.sha256()
    for conversation in conversations:
        digest.update(_canonical(conversation))
    return digest.hexdigest()


def _assistant_turns(conversation: Conversation, tokenizer: Any) -> Iterator[tuple[str, str]]:
    """Yield (everything before, the turn itself up to its end-of-turn token)."""
    messages, tools = conversation["messages"], conversation.get("tools")

    def render(count: int, *, open_turn: bool) -> str:
        text = tokenizer.apply_chat_template(
            messages[:count], tools=tools, tokenize=False, add_generation_prompt=open_turn
        )
        return str(text)

    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before, after = render(index, open_turn=True), render(index + 1, open_turn=False)
        if not after.startswith(before):
            raise ValueError("the chat template rewrites earlier turns; it cannot be trained on")
        turn, end, _ = after.removeprefix(before).rpartition(tokenizer.eos_token)
        yield before, turn + end


def _read(path: Path) -> list[Conversation]:
    """Read a JSONL file; each line is {"messages": [...], "tools": [...]}."""
    conversations = []
    with path.open("rb") as lines:
        if lines.read(len(BOM_UTF8)) != BOM_UTF8:  # some editors begin a file with this mark
            lines.seek(0)
        for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_BYTES), b""), start=1):
            if line.strip():
                conversations.append(_checked(line, f"{path.name} line {number}"))
    return conversations


def _checked(line: bytes, where: str) -> Conversation:
    try:
        conversation = json.loads(line.decode())  # of bytes it would guess an encoding
        roles = [message["role"] for message in conversation["messages"]]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{where}: not a conversation with messages and roles") from error
    if "assistant" not in roles[1:]:
        raise ValueError(f"{where}: no assistant turn to learn from")
    return {"messages": conversation["messages"], "tools": conversation.get("tools")}


def _split_by_digest(
    conversations: list[Conversation], held_out: int
) -> tuple[list[Conversation], list[Conversation]]:
    if len(conversations) <= held_out:
        raise ValueError(
            f"the data set has {len(conversations)} conversations; with {held_out} held out "
            "(--eval-conversations) none is left to train on"
        )
    ordered = sorted(conversations, key=lambda item: hashlib.sha256(_canonical(item)).digest())
    return ordered[held_out:], ordered[:held_out]


def _canonical(conversation: Conversation) -> bytes:
    return json.dumps(conversation, sort_keys=True).encode() + b"\n"
