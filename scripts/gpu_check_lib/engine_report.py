"""What the sections of `engine.py` found, each in its place."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Report:
    """The sections' results; written after each, so that none is lost."""

    def __init__(self, path: Path, only: frozenset[str]) -> None:
        self._path, self._only = path, only
        self.found: dict[str, Any] = {
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        }

    def section(self, name: str, measure: Callable[[], Any]) -> Any:
        """What a section measures; None if it fails, with the reason in its place, or is not asked
        for.
        """
        if self._only and name not in self._only:
            return None
        began = time.perf_counter()
        try:
            self.found[name] = measure()
        except Exception as error:  # noqa: BLE001 - the other sections are measured all the same
            traceback.print_exc()
            self.found[name] = {"error": f"{type(error).__name__}: {error}"}
        self.found[f"{name}_took_s"] = time.perf_counter() - began
        self._path.write_text(json.dumps(self.found, indent=1))
        print(f"== {name}: {json.dumps(self.found[name])}", flush=True)
        failed = isinstance(self.found[name], dict) and "error" in self.found[name]
        return None if failed else self.found[name]
