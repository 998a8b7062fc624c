"""The trainers that `scripts/bench finetune` and `scripts/bench lora` compare, on one model."""
