"""Virtual hosts with a rootless podman, and images for them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from virtual_hosts_lib.hosts import VirtualHosts

from tests.fixtures.oci_image import write_image
from tests.hosts.processes import remains
from tests.hosts.sets import ssh

IMAGE = "localhost/orchestrate:test"
LIBRARIES = ("/usr/lib/x86_64-linux-gnu:/lib/x86_64-linux-gnu:ro", "/usr/lib64:/lib64:ro")


class Images:
    """Archives in ``folder``, which the hosts share; of what is called the same, one differs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o755)
        self.id = write_image(folder / "image.tar", IMAGE, {"etc/image": b"the image\n"})
        write_image(folder / "other.tar", IMAGE, {"etc/image": b"another image\n"})

    def archive(self, name: str) -> str:
        """As podman and ``--container`` name it."""
        return f"oci-archive:{self.folder}/{name}"


def contained_inventory(hosts: VirtualHosts, image: str) -> str:
    """The hosts' inventory, with a container for every node: this machine's Python is mounted."""
    places = dict.fromkeys((sys.prefix, sys.base_prefix, str(Path(sys.base_prefix).resolve())))
    container = {"image": image, "mounts": [*(f"{place}:ro" for place in places), *LIBRARIES]}
    text = hosts.inventory.read_text()
    return text.replace("defaults:\n", f"defaults:\n  container: {json.dumps(container)}\n", 1)


def containers(hosts: VirtualHosts, name: str) -> list[str]:
    """What podman has there, also what it only keeps a layer of, and its monitors."""
    line = "podman ps --all --external --format '{{.Names}}'; pgrep --list-name conmon || true"
    return ssh(hosts, name, line, 30).splitlines()


def assert_nothing_left(hosts: VirtualHosts, run: str) -> None:
    assert not remains(hosts, run)
    left = {name: found for name in hosts.names if (found := containers(hosts, name))}
    assert left == {}
