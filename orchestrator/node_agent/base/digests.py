"""Digests of little data, without OpenSSL: ``hashlib`` loads it, which takes each start of an agent
or a supervisor longer than all that it digests. Of whole files, OpenSSL's SHA-256 is the faster.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import blake2b, sha256
else:
    try:
        from _blake2 import blake2b

        try:
            sha256 = __import__("_sha2").sha256
        except ImportError:  # before Python 3.12
            from _sha256 import sha256
    except ImportError:  # built without them
        from hashlib import blake2b, sha256

__all__ = ["blake2b", "sha256"]
