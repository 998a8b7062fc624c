"""Benchmarks: ours and others side by side, interleaved, on virtual hosts.

Standard library only; what is measured runs in processes of its own.
"""

from __future__ import annotations
