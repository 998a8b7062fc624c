"""``python -m orchestrator`` is the ``orchestrate`` command."""

from __future__ import annotations

import sys

from orchestrator.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
