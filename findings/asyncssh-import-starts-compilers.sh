#!/bin/sh
# `import asyncssh` (2.24.1) starts ldconfig, gcc and ld, seven processes, where liboqs is not
# installed: asyncssh/crypto/pq.py and umac.py call ctypes.util.find_library at import, which runs a
# compiler for each library that the linker's cache does not have. The more developer tools a
# machine has, the slower every program that uses asyncssh starts.
#
# Seen on 2026-12-01, Debian 12 with gcc, Python 3.11, asyncssh 2.24.1:
#     processes: ldconfig gcc ld ldconfig gcc ld ldconfig
#     import: 0.12 s of CPU with children; 0.09 s when the search is left out
#
# Needs Python 3.11 on Linux, gcc and a package index. ASYNCSSH_ENV names an environment that has
# asyncssh already.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python="${ASYNCSSH_ENV:-$scratch/env}/bin/python"
if [ -z "${ASYNCSSH_ENV:-}" ]; then
    python3 -m venv "$scratch/env"
    "$scratch/env/bin/pip" install --quiet --disable-pip-version-check asyncssh==2.24.1
fi

cat >"$scratch/look.py" <<'PROGRAM'
import os
import sys

started = []
sys.addaudithook(lambda name, told: started.append(told[0]) if name == "subprocess.Popen" else None)
if "without" in sys.argv:
    import ctypes.util

    ctypes.util.find_library = lambda name: None
before = os.times()
import asyncssh

after = os.times()
print("processes:", *(os.path.basename(str(program)) for program in started))
print(f"import: {sum(after[:4]) - sum(before[:4]):.2f} s of CPU, children included")
PROGRAM

echo "as it is:"
"$python" "$scratch/look.py" | tee "$scratch/as-it-is"
echo "without the search:"
"$python" "$scratch/look.py" without | tee "$scratch/without"

# It has changed if no compiler is started any more, or if something else starts one.
grep -q '^processes:.* gcc .*ld' "$scratch/as-it-is"
grep -qx 'processes:' "$scratch/without"
