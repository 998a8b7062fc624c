#!/bin/sh
# AIPerf 0.13.0 loads a tokenizer from a local folder, as its --tokenizer says it does, but with
# HF_HUB_OFFLINE=1 it takes the folder's path for the name of a repository on the hub and fails: the
# one setting that sites without a network make. transformers loads the same folder either way.
#
# Seen on 2026-11-30, Python 3.11:
#     online:  loaded, 3 tokens
#     offline: TokenizerError: Failed to load tokenizer '...': HFValidationError: Repo id must be in
#              the form 'repo_name' or 'namespace/repo_name': '...'
#     transformers offline: loaded, 3 tokens
#
# Needs Python 3.11 on Linux and a package index; some 1 GB of temporary disk. AIPERF_ENV names an
# environment that has AIPerf already.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python="${AIPERF_ENV:-$scratch/env}/bin/python"
if [ -z "${AIPERF_ENV:-}" ]; then
    python3 -m venv env
    env/bin/pip install --quiet --disable-pip-version-check aiperf==0.13.0
fi

cat >make.py <<'PROGRAM'
import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

tokenizer = Tokenizer(models.WordLevel({"?": 0, "one": 1, "two": 2, "three": 3}, unk_token="?"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
Path("made").mkdir()
tokenizer.save("made/tokenizer.json")
about = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "?"}
Path("made/tokenizer_config.json").write_text(json.dumps(about))
PROGRAM

cat >load.py <<'PROGRAM'
import sys
from pathlib import Path

from aiperf.common.tokenizer import Tokenizer
from transformers import AutoTokenizer

load = {"aiperf": Tokenizer, "transformers": AutoTokenizer}[sys.argv[1]].from_pretrained
try:
    print("loaded,", len(load(str(Path("made").resolve())).encode("one two three")), "tokens")
except Exception as error:  # AIPerf's own, around what the hub's client raised
    print(f"{type(error).__name__}: {str(error).splitlines()[0]}")
PROGRAM

"$python" make.py
say() { "$python" load.py "$1" 2>/dev/null | tail -n 1; }
echo "online:  $(unset HF_HUB_OFFLINE; say aiperf)"
echo "offline: $(HF_HUB_OFFLINE=1 say aiperf)"
echo "transformers offline: $(HF_HUB_OFFLINE=1 say transformers)"
