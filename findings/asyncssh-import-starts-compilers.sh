#!/bin/sh
# `import asyncssh` 2.24.1 starts gcc, ld and ldconfig, six processes and more, on every Linux machine
# that has no liboqs: it asks ctypes.util.find_library for it, twice, by two names, and that function
# seeks what ldconfig does not list with the compiler. Where gcc is installed this is much of the import.
#
# Seen on 2026-12-01, Python 3.11, Debian 12:
#     started: ldconfig gcc ld ldconfig gcc ld ldconfig
#
# Needs Python 3.11 on Linux with gcc, and a package index. ASYNCSSH_ENV names an environment that has
# asyncssh already.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python="${ASYNCSSH_ENV:-$scratch/env}/bin/python"
if [ -z "${ASYNCSSH_ENV:-}" ]; then
    python3 -m venv env
    env/bin/pip install --quiet --disable-pip-version-check asyncssh==2.24.1
fi

"$python" -c '
import sys
started = []
sys.addaudithook(lambda event, told: started.append(told[0]) if event == "subprocess.Popen" else 0)
import asyncssh
print("started:", *(str(program).rpartition("/")[2] for program in started))
'
