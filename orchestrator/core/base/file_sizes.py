"""How large files may be that people write. Data only."""

from __future__ import annotations

MAX_FILE_BYTES = 1 << 20
"""Of a configuration file."""
