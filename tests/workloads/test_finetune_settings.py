"""What the finetune script takes on its command line, and what identifies a training."""

from __future__ import annotations

import pytest

import orchestrate_kit as kit
from finetune.base.settings import Settings
from tests.workloads.conftest import finetune_workload
from tests.workloads.declared import declared

WORKLOAD = finetune_workload()


def test_the_real_preset_is_what_its_owners_run() -> None:
    """On 16 GPUs a step has 128 rows; rank 64, alpha 128, 4096 tokens, evaluation at 50 and 100."""
    argv = []
    for name, value in WORKLOAD.presets["qwen2-7b"].items():
        argv += [f"--{name.replace('_', '-')}", str(value)]
    settings = kit.parse(Settings, argv)

    assert settings.rows_per_step(16) == 128
    assert (settings.lora_rank, settings.lora_alpha, settings.sequence_length) == (64, 128, 4096)
    assert (settings.steps, settings.eval_every, settings.checkpoint_every) == (100, 50, 50)


@pytest.mark.parametrize(
    "option", ["--steps=0", "--lora-dropout=1", "--learning-rate=0", "--dtype=fp8", "--step=3"]
)
def test_what_makes_no_sense_is_a_usage_error(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and the name of the option, before anything is loaded."""
    with pytest.raises(SystemExit, match="2"):
        kit.parse(Settings, [option])

    assert option.partition("=")[0] in capsys.readouterr().err


def test_what_does_not_change_the_training_may_change_between_attempts() -> None:
    """A resumed attempt may checkpoint more often; it may not learn at another rate."""
    before = declared(Settings, global_batch=12).digest(4)

    assert (
        declared(Settings, global_batch=12, checkpoint_every=7, micro_batch=1).digest(2) == before
    )
    assert declared(Settings, global_batch=12, learning_rate=1.0).digest(4) != before
    assert declared(Settings, global_batch=0).digest(2) != declared(
        Settings, global_batch=0
    ).digest(4)
