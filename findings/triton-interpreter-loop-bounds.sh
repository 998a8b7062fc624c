#!/bin/sh
# Triton 3.6.0's interpreter (TRITON_INTERPRET=1, how kernels are tested where there is no GPU) cannot
# run `for i in range(n)` under NumPy 2.4 when n was read from memory, which is how a kernel loops over
# a length that only the device knows. The interpreter keeps every scalar as an array of one dimension
# and turns it into a loop bound by int(); NumPy 2.4 raises TypeError there, where NumPy up to 2.3 gave
# a DeprecationWarning. Triton's own requirements do not bound NumPy. Compiled kernels are not affected,
# nor are loops over a bound that the host passes as an argument. Triton 3.7.1 does not do so any more.
#
# Seen on 2026-11-30, torch 2.13.0 (CPU), the sum of the first three of 0, 1, 2, 3:
#     NumPy 2.3.5:  3.0
#     NumPy 2.4.6:  TypeError: only 0-dimensional arrays can be converted to Python scalars
#
# Needs Python 3.11 on Linux and a package index; some 2 GB of temporary disk.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv env
install() { env/bin/pip install --quiet --disable-pip-version-check "$@"; }

cat >kernel.py <<'PROGRAM'
import torch
import triton
import triton.language as tl


@triton.jit
def add_up(out, values, count):
    total = 0.0
    for index in range(tl.load(count)):
        total += tl.load(values + index)
    tl.store(out, total)


out, values, count = torch.zeros(1), torch.arange(4.0), torch.tensor([3], dtype=torch.int32)
try:
    add_up[(1,)](out, values, count)
    print(out.item())
except Exception as error:  # the interpreter's own, around what NumPy raised
    cause = error.__cause__ or error.__context__
    print(f"{type(cause).__name__}: {cause}")
PROGRAM

install torch==2.13.0 numpy==2.3.5
install --no-deps triton==3.6.0 # torch built for GPUs asks for 3.7.1
older=$(TRITON_INTERPRET=1 env/bin/python -W ignore kernel.py)
install numpy==2.4.6
newer=$(TRITON_INTERPRET=1 env/bin/python -W ignore kernel.py)
echo "NumPy 2.3.5: $older"
echo "NumPy 2.4.6: $newer"
[ "$older" = 3.0 ] || { echo 'this has changed' >&2; exit 1; }
[ "$newer" = 'TypeError: only 0-dimensional arrays can be converted to Python scalars' ] ||
    { echo 'this has changed' >&2; exit 1; }
