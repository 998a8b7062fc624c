#!/bin/sh
# torch.multiprocessing.spawn gives each child the name of a file for its traceback, `pytorch-errorfile-*.pickle`
# in the temporary directory. A child that raises writes it, the parent reads it for its ProcessRaisedException,
# and nobody removes it: each failing spawn leaves one file per child that raised, for ever, under names that say
# neither whose they are nor of which run. A launcher that tidies up behind its ranks cannot know them.
#
# Seen on 2026-12-01, torch 2.13.0 (CPU), Python 3.11:
#     after a spawn whose child raises:   1 file, pytorch-errorfile-*.pickle
#     after a spawn that succeeds:        none
# Workaround: give the program a TMPDIR of its own and remove that.
#
# Needs Python 3.11 on Linux and a package index; some 1 GB of temporary disk.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.13.0

cat >spawn.py <<'PROGRAM'
import sys

import torch.multiprocessing as mp


def child(index, fails):
    if fails:
        raise RuntimeError("in a child")


if __name__ == "__main__":
    try:
        mp.spawn(child, args=(sys.argv[1] == "fails",), nprocs=1)
    except mp.ProcessRaisedException:
        pass
PROGRAM

left() {
    mkdir "$1"
    TMPDIR="$scratch/$1" env/bin/python -W ignore spawn.py "$1"
    find "$1" -name 'pytorch-errorfile-*.pickle' | wc -l
}

failed=$(left fails)
succeeded=$(left succeeds)
echo "files left by a spawn that fails: $failed, that succeeds: $succeeded"
[ "$failed $succeeded" = '1 0' ] || { echo 'this has changed' >&2; exit 1; }
