"""What a node tells of the image that its ranks will run in. Nothing of it is trusted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from orchestrator.core.model.container import ContainerImage
from orchestrator.parsing.replies.supervisor_records import MAX_PATH, BadRecord, parse_interpreter

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
REFERENCE = re.compile(r"(sha256:)?[0-9a-f]{64}|/[^\x00-\x1f\x7f]{1,4095}")


def parse_image(fields: Mapping[str, Any]) -> tuple[ContainerImage, Mapping[str, str]]:
    """The image, and the modules that its Python has. Raises ``BadRecord``."""
    program, reference = fields.get("program"), fields.get("reference")
    digest = fields.get("digest")
    if not isinstance(program, str) or not program.startswith("/") or len(program) > MAX_PATH:
        raise BadRecord("not a program")
    if not isinstance(reference, str) or not REFERENCE.fullmatch(reference):
        raise BadRecord("not a reference of an image")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise BadRecord("not a digest of an image")
    found = parse_interpreter({"interpreter": program, "modules": fields.get("modules")})
    return ContainerImage(reference=reference, digest=digest, program=program), found.modules
