"""Generated files of ssh_config, read by OpenSSH and by us, for several names each."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from tests.contracts.transport.openssh import differences, judged, read_by_us

pytestmark = pytest.mark.processes

NAMES = ("web", "gpu-1", "GPU-2", "gpu-2", "web.example", "10.0.0.1", "::1")
USERS = ("alice", "bob", "LAB\\bob", "root")

names = st.sampled_from(NAMES)
patterns = st.lists(
    st.sampled_from(
        [
            "*",
            "gpu-*",
            "GPU-*",
            "gpu-?",
            "web",
            "!gpu-2",
            "!web",
            "*.example",
            "10.*",
            "w?b",
            '"web"',
        ]
    ),
    min_size=1,
    max_size=3,
)
pattern_lists = patterns.map(lambda chosen: ",".join(word.strip('"') for word in chosen))
between = st.sampled_from([" ", "=", " = ", "\t", "  "])
exec_lines = st.sampled_from(
    ["true", "false", '"test %h = web"', '"test %r = bob"', '"exit 3"', '"[ %n = %h ]"']
)
criteria = st.one_of(
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["host", "!host", "originalhost", "HOST", "!originalhost"]),
        between,
        pattern_lists,
        st.sampled_from(["", " ", "\t"]),
    ),
    st.builds("user{}{}".format, between, st.sampled_from(["alice", "*", "bob,!alice", "LAB*"])),
    st.builds("localuser{}{}".format, between, st.sampled_from(["*", "root", "nobody"])),
    st.builds("exec {}".format, exec_lines),
    st.sampled_from(["final", "!final", "canonical", "!canonical"]),
)
conditions = st.one_of(
    st.sampled_from(["all", "final all", "!all", "host gpu-* all", "all # comment"]),
    st.lists(criteria, min_size=1, max_size=3).map(" ".join),
    st.lists(criteria, min_size=1, max_size=2).map(lambda c: f"{' '.join(c)} # it is a comment"),
)
hosts = st.sampled_from(["10.1.1.1", "%h.example", "web", "WEB.lab", "%%x", "127.1", "::0:1"])
hops = st.sampled_from(
    ["bastion", "u@a:22", "%r@b-%h", "[::1]", "u@[::1]:2222", "ssh://u@h:22", "10.0.0.9", "a:ssh"]
)
files = st.sampled_from(
    ["/k/one", "~/k-%h-%p", "%d/k-%n-%r", "~root/x", "${PATH}", "/k/%C", "k-%k-%%", "/k/%u-%i"]
)
plain = {
    "HostName": hosts,
    "Port": st.one_of(st.integers(1, 65535).map(str), st.sampled_from(["ssh", "+22", "http"])),
    "User": st.sampled_from(USERS),
    "HostKeyAlias": st.sampled_from(["one", "Two", "none"]),
    "IdentitiesOnly": st.sampled_from(["yes", "no", "TRUE", "false"]),
    "IdentityFile": st.one_of(files, st.just("none")),
    "CertificateFile": files,
    "IdentityAgent": st.one_of(files, st.sampled_from(["none", "SSH_AUTH_SOCK", "$AGENT"])),
    "AddressFamily": st.sampled_from(["any", "inet", "INET6"]),
    "BindAddress": st.sampled_from(["127.0.0.1", "::1", "*"]),
    "BindInterface": st.just("lo"),
    "ProxyUseFdpass": st.sampled_from(["yes", "no"]),
    "PubkeyAuthentication": st.sampled_from(["yes", "no", "host-bound"]),
    "PreferredAuthentications": st.sampled_from(["publickey", "gssapi-with-mic,publickey"]),
    "CanonicalizeHostname": st.just("no"),
    "CanonicalizeMaxDots": st.integers(0, 9).map(str),
    "CanonicalizeFallbackLocal": st.sampled_from(["yes", "no"]),
    "RevokedHostKeys": st.sampled_from(["/r", "none"]),
    "Ciphers": st.sampled_from(["aes128-ctr", "aes256-ctr,aes128-ctr"]),
    "KexAlgorithms": st.sampled_from(["curve25519-sha256", "ecdh-sha2-nistp256"]),
    "MACs": st.just("hmac-sha2-256"),
    "HostKeyAlgorithms": st.sampled_from(["ssh-ed25519", "rsa-sha2-512,ssh-ed25519"]),
    "PubkeyAcceptedAlgorithms": st.just("ssh-ed25519"),
}
several = {
    "UserKnownHostsFile": st.one_of(
        st.lists(files, min_size=1, max_size=2).map(" ".join), st.just("none")
    ),
    "GlobalKnownHostsFile": st.sampled_from(["/f/one", "/f/one /f/two", "none"]),
    "SetEnv": st.sampled_from(["A=1", "A=1 B=2 A=3", 'A="x y"', "'B=it is'", "C="]),
    "SendEnv": st.sampled_from(["LANG", "LC_* LANG", "-LC_*", "X -X* Y"]),
    "CanonicalDomains": st.sampled_from(["lab example.org", "none"]),
    "ProxyJump": st.one_of(
        st.sampled_from(["none", "NONE", "a # comment"]),
        st.lists(hops, min_size=1, max_size=2).map(",".join),
    ),
    "ProxyCommand": st.sampled_from(["none", "nc %h %p", "relay '%h' \"$X\" # kept", "ssh -W a b"]),
    "KnownHostsCommand": st.sampled_from(["none", "/bin/list %H"]),
}
FORMS = ("{} {}", "{}={}", "{} = {}", '"{}" {}', "\t{}\t{}", "  {}   {}  ")
forms = st.sampled_from(FORMS)
quoted = st.sampled_from([*FORMS, '{} "{}"', "{} '{}'", "{} {} # comment", "{}={}\t# it is one"])
cases = st.sampled_from([str, str.lower, str.upper])
values = st.one_of(
    *(
        st.builds(lambda form, case, value, k=keyword: form.format(case(k), value), style, cases, v)
        for style, table in ((quoted, plain), (forms, several))
        for keyword, v in table.items()
    ),
    st.sampled_from(["# a comment", "", "   ForwardAgent = yes", "Compression yes", "\t# Port 1"]),
)
blocks = st.builds(
    "{}{}{}".format,
    st.sampled_from(["Host ", "host\t", "Host="]),
    patterns.map(" ".join),
    st.sampled_from(["", " # first rack", "  "]),
)
lines = st.one_of(values, values, values, blocks, st.builds("Match {}".format, conditions))


# Without shrinking: one example starts several programs, and a failure shows its files.
PHASES = (Phase.explicit, Phase.generate)


@settings(max_examples=320, deadline=None, database=None, derandomize=True, phases=PHASES)
@example(  # the final pass compares "Host" with the name that the first has found
    ["HostName web.example", "Host *.example", "User alice"],
    "Host *",
    ["Match final"],
    [],
    ["web"],
)
@given(
    st.lists(lines, max_size=8),
    blocks,
    st.lists(lines, min_size=1, max_size=6),
    st.lists(lines, max_size=8),
    st.lists(names, min_size=3, max_size=3, unique=True),
)
def test_any_file_means_what_openssh_says(
    before: list[str], block: str, included: list[str], after: list[str], asked: list[str]
) -> None:
    """Blocks, conditions and, in one of the blocks, an Include; no line is bad by itself."""
    with tempfile.TemporaryDirectory() as folder:
        file, other = Path(folder, "config"), Path(folder, "other")
        other.write_text("\n".join(included) + "\n")
        file.write_text("\n".join([*before, block, f"Include {other}", *after]) + "\n")
        for name, theirs in judged(file, asked).items():
            shown = f"{name} in {file.read_text()}\n--- with\n{other.read_text()}"
            assert differences(theirs, read_by_us(file, name)) == {}, shown


# Names of algorithms are not judged: what one version lacks another one has.
spoilt = [k for k in plain if k != "Ciphers" and not k.endswith(("Algorithms", "MACs"))]
spoilers = st.builds(
    "{} {}".format,
    st.sampled_from([*spoilt, *several, "Host", "Include"]),
    st.sampled_from(
        ["", "''", '"open', "a b c d", "%z", "x=", "=", "yes", "a,b:c", "\\", "'zz' #"]
    ),
)


@settings(max_examples=80, deadline=None, database=None, derandomize=True, phases=PHASES)
@given(st.lists(values, max_size=3), spoilers, st.lists(lines, max_size=3), names)
def test_a_bad_line_is_bad_for_both(
    before: list[str], spoiler: str, after: list[str], name: str
) -> None:
    """Refused by both, or read alike."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config")
        file.write_text("\n".join([*before, spoiler, *after]) + "\n")
        theirs = judged(file, [name])[name]
        assert differences(theirs, read_by_us(file, name)) == {}, f"{name} in {file.read_text()}"
