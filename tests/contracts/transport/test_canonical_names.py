"""CanonicalizeHostname, with a name server that this test alone sees: ``ssh -G`` judges."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.architecture.source import ROOT
from tests.time_limits import scaled

ON = "CanonicalizeHostname yes\nCanonicalDomains none.test lab.test other.test\n"
FOLLOW = "CanonicalizePermittedCNAMEs *.lab.test:*.lab.test\n"
# The file, the name that is asked for, and the host that OpenSSH connects to; None: it refuses.
CASES: dict[str, tuple[str, str, str | None]] = {
    "a domain that has it": (ON, "web", "web.lab.test"),
    "the next domain": (ON, "GPU", "gpu.other.test"),
    "no domain has it": (ON, "nowhere", "nowhere"),
    "no domain, and no way back": (f"{ON}CanonicalizeFallbackLocal no\n", "nowhere", None),
    "too many dots": (ON, "deep.in.lab.test", "deep.in.lab.test"),
    "a dot is few enough": (ON, "deep.in", "deep.in.lab.test"),
    "no dots allowed": (f"CanonicalizeMaxDots 0\n{ON}", "deep.in", "deep.in"),
    "a full name with its dot": (ON, "web.lab.test.", "web.lab.test"),
    "an address": (ON, "192.0.2.1", "192.0.2.1"),
    "off": ("CanonicalDomains lab.test\n", "web", "web"),
    "no domain at all": ("CanonicalizeHostname yes\n", "web", "web"),
    "an alias is not followed": (ON, "alias", "alias.lab.test"),
    "an alias is followed": (ON + FOLLOW, "alias", "real.lab.test"),
    "an alias to where it may not lead": (ON + FOLLOW, "out", "out.lab.test"),
    "any alias": (f"{ON}CanonicalizePermittedCNAMEs *\n", "out", "gpu.other.test"),
    "the second pass sees the full name": (
        f"{ON}Host *.lab.test\n  User bob\n  Port 2222\nMatch canonical\n  HostKeyAlias seen\n",
        "web",
        "web.lab.test",
    ),
    "not through a proxy": (f"{ON}ProxyCommand nc %h %p\n", "web", "web"),
    "not through a jump host": (f"{ON}ProxyJump b\n", "web", "web"),
    "always": (f"{ON.replace('yes', 'always')}ProxyJump b\n", "web", "web.lab.test"),
    "a HostName is looked up": (f"HostName web\n{ON}", "anything", "web.lab.test"),
}
# Its own resolver, and a loopback interface to reach it by.
ALONE = (
    'ip link set lo up && mount --bind "$1" /etc/resolv.conf && '
    'mount --bind "$2" /etc/nsswitch.conf && shift 2 && exec "$@"'
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """By case: the host that OpenSSH names, and the differences between it and us."""
    folder = tmp_path_factory.mktemp("dns")
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:2 attempts:2\n")
    (folder / "nsswitch.conf").write_text(
        "passwd: files\ngroup: files\nservices: files\nhosts: dns\n"
    )
    asked = []
    for number, (text, name, _) in enumerate(CASES.values()):
        (folder / str(number)).write_text(text)
        asked.append((str(folder / str(number)), name))
    command = ["unshare", "--mount", "--net", "sh", "-c", ALONE, "sh"]
    command += [str(folder / "resolv.conf"), str(folder / "nsswitch.conf"), sys.executable]
    done = subprocess.run(
        [*command, "-m", "tests.contracts.transport.dns_judge"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=scaled(120),
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.mark.processes
@pytest.mark.parametrize("case", CASES)
def test_names_become_canonical_as_in_openssh(
    found: dict[str, dict[str, object]], case: str
) -> None:
    """The same host, and the same of everything that hangs on it."""
    assert found[case]["host"] == CASES[case][2]
    assert found[case]["differences"] == {}
