"""What OpenSSH and we make of the user's and the system's own files of ssh_config.

Run inside a mount namespace whose ``~/.ssh`` and ``/etc/ssh`` are a test's; see
test_default_files.py. Takes names as arguments, and writes, for each, what OpenSSH says and the
differences between it and us, as JSON.
"""

from __future__ import annotations

import json
import sys

from tests.contracts.transport.openssh import differences, judged, read_by_us


def main() -> None:
    theirs = judged(None, sys.argv[1:])
    found = {
        name: {"openssh": judgement, "differences": differences(judgement, read_by_us(None, name))}
        for name, judgement in theirs.items()
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
