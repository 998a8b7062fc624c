#!/bin/sh
# Python's subprocess and wait4 on Linux: the peak memory (ru_maxrss) of a program begins with the peak of the
# process that started it, because what the kernel keeps of a process survives its exec. `true` started by a
# Python program with 400 MB reports 400 MB; what the program itself used is VmHWM of /proc/PID/status. A
# benchmark that prepares its data and then measures other programs by wait4 measures its own data.
#
# Seen on 2026-11-30, Linux 6.18, Python 3.11.7: small parent 15 MB, large parent 414 MB.
#
# Needs Python 3.8 or newer on Linux.
set -eu

peak() {
    python3 - "$1" <<'PYTHON'
import os, subprocess, sys
ballast = bytearray(os.urandom(1 << 20)) * int(sys.argv[1])
process = subprocess.Popen(["true"])
_, _, usage = os.wait4(process.pid, 0)
process.returncode = 0
print(usage.ru_maxrss // 1024)
PYTHON
}
small=$(peak 1)
large=$(peak 400)
echo "peak of true: $small MB under a small parent, $large MB under one of 400 MB"
[ "$large" -gt $((small + 300)) ] || { echo 'this has changed' >&2; exit 1; }
