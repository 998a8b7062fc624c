"""A rank of several that train, with their frozen weights shared or not; argv: folder of the
workloads, file for results, a JSON list of worlds. Each is {"nodes", "per_node", "port", "lines"}:
so many of the ranks meet at that port, as ranks of so many nodes, and each of the command lines is
a training of theirs. The results tell the bytes of frozen weights that each rank holds, too.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
from typing import Any

sys.path.append(sys.argv[1])  # the folder of the workloads and the kit

import torch

import orchestrate_kit as kit
from finetune.base.settings import Settings
from finetune.base.world import World, joined_world
from finetune.data.conversations import encode, load_conversations
from finetune.data.packing import Row, text_example
from finetune.model.lora import Trainable, prepare
from finetune.training.evaluation import answer_prompts, mean_loss
from finetune.training.trainer import Trainer

gc.freeze()  # what is imported stays, and is not looked at with each count of what is alive
WORDS = 300


def rows(count: int) -> list[Row]:
    """Several documents in most of them, of many lengths."""
    chance = random.Random(1)

    def words() -> list[int]:
        return [chance.randrange(WORDS) for _ in range(chance.randint(2, 9))]

    return [
        tuple(text_example(words(), words()) for _ in range(1 + index % 3))
        for index in range(count)
    ]


def frozen_bytes(trainer: Trainer) -> int:
    """Of all tensors that are alive but those that are trained, and their gradients."""
    gc.collect()
    trained = {trainer.buffer.untyped_storage().data_ptr()}
    trained |= {p.untyped_storage().data_ptr() for p in trainer.parameters}
    held = [t for t in gc.get_objects() if isinstance(t, torch.Tensor) and t.is_floating_point()]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
    return sum(size for place, size in storages.items() if place not in trained)


def answers(trainable: Trainable) -> list[str]:
    """Longer ones on each next rank, as where others come to an end sooner."""
    _, held_out = load_conversations(trainable.settings)
    trainable.model.generation_config.max_new_tokens = 2 + 2 * trainable.world.rank
    examples = [encode(conversation, trainable.tokenizer) for conversation in held_out]
    return [sample.answer for sample in answer_prompts(trainable, examples)]


def train(settings: Settings, world: World) -> dict[str, Any]:
    trainable = prepare(settings, world)
    with torch.no_grad():
        for index, parameter in enumerate(trainable.parameters):
            parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(index))
    data = rows(settings.steps * settings.rows_per_step(world.total))
    trainer = Trainer(trainable, data)
    told: dict[str, Any] = {"before": mean_loss(trainer, data[:3])}
    told["bytes"] = world.gather(frozen_bytes(trainer))
    told["steps"] = []
    for step in range(1, settings.steps + 1):
        loss = trainer.step(step).loss
        told["steps"].append((loss, trainer.buffer.tolist()))
    told["after"] = mean_loss(trainer, data[:3])
    told["answers"] = answers(trainable)
    told["engine"] = trainer.engine.description
    return told


def train_in(place: dict[str, Any]) -> list[dict[str, Any]]:
    """What this rank's place in a world makes of each command line; nothing for a rank without."""
    size, rank = place["nodes"] * place["per_node"], int(os.environ["RANK"])
    if rank >= size:
        return []
    os.environ |= {
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank % place["per_node"]),
        "MASTER_PORT": str(place["port"]),
        "TORCHELASTIC_USE_AGENT_STORE": "False",  # which the ranks of one world have used up
    }
    with joined_world("cpu", timeout_s=120) as world:
        return [train(kit.parse(Settings, argv), world) for argv in place["lines"]]


found = [train_in(place) for place in json.loads(sys.argv[3])]
if os.environ["RANK"] == "0":
    torch.save(found, sys.argv[2])

# What is tested is on the disk: torch's threads have been seen to abort an interpreter that ends.
sys.stdout.flush()
os._exit(0)
