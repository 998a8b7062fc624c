"""What the coordinator's probe found on this node, handed to its ranks as a file."""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict


def facts() -> Dict[str, Any]:
    """GPUs, network adapters and all else that ``orchestrate probe --json`` shows of this node.

    Empty without a coordinator (plain ``torchrun``, plain ``python``), and where it did not probe:
    nothing is known then. In it, None and ``""`` mean that the probe could not find out.
    """
    path = os.environ.get("ORCHESTRATE_FACTS")
    if not path:
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError) as error:
        sys.stderr.write("orchestrate_kit: no facts of this node: %s: %s\n" % (path, error))
        return {}
    return found if isinstance(found, dict) else {}
