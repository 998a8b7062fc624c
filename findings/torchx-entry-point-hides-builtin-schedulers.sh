#!/bin/sh
# TorchX 0.7.0: a package that registers one scheduler of its own, as TorchX's documentation says
# (an entry point of the group "torchx.schedulers"), takes all of TorchX's own schedulers away from
# whoever installs it: `torchx run -s local_cwd` is an invalid choice from then on. load_group()
# returns the defaults only where no package has an entry point of the group.
#
# Seen on 2026-12-01, Python 3.11:
#     alone:         local_docker local_cwd slurm kubernetes ... lsf
#     with a plugin: mine
#
# The nightly build of 2026-10-26 keeps them, and makes the plug-in the default of `torchx run`.
#
# Needs Python 3.9 or newer and a package index.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torchx==0.7.0

mkdir -p plugin/mine-1.dist-info
printf 'Metadata-Version: 2.1\nName: mine\nVersion: 1\n' >plugin/mine-1.dist-info/METADATA
printf '[torchx.schedulers]\nmine = mine:create_scheduler\n' >plugin/mine-1.dist-info/entry_points.txt

names() {
    env/bin/python -c 'from torchx.schedulers import get_scheduler_factories as f; print(*f())'
}
alone=$(names)
with=$(PYTHONPATH=plugin names)
echo "alone:         $alone"
echo "with a plugin: $with"
[ "$with" = mine ] || { echo 'this has changed' >&2; exit 1; }
