"""Mutation check: bugs made by hand, and a runner that demands that the tests catch each."""

from __future__ import annotations
