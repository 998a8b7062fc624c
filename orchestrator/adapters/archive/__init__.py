"""Evidence as one file: a ``.tar.gz`` with a manifest and digests, verified before it is there.

``write_archive`` makes one, ``read_archive`` verifies every byte and returns what is asked for,
``deliver`` brings one to another folder or node. All that ``tar`` and ``sha256sum -c SHA256SUMS``
need is in it, so that its reader needs nothing of ours.
"""
