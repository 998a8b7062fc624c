"""LoRA fine-tuning for function calling: `train.py` is the script, the folders are its parts."""
