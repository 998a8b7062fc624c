"""Facts about ssh_config, each a small file: OpenSSH's ``ssh -G`` says what is right."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.contracts.transport.openssh import Judgement, differences, judged, read_by_us

pytestmark = pytest.mark.processes

TOKENS = """\
User bob
Port 7
HostName %h.x
HostKeyAlias ABC
UserKnownHostsFile ~/k-%h-%n-%p-%r-%%-%C-%L-%l-%d-%i-%k-%u
"""
# The names that are asked for, and the file.
FACTS = {
    # Ports
    "a service's name is a port": ("n", "Host n\n  Port ssh\n"),
    "a bad port refuses the file": ("n other", "Host n\n  Port abc\n"),
    "port 0": ("n other", "Host n\n  Port 0\n"),
    "a port too large": ("n", "Port 99999\n"),
    "a port with a sign": ("n", "Port +22\n"),
    "a port below 0": ("n", "Port -1\n"),
    "a port in hexadecimal": ("n", "Port 0x16\n"),
    "a quoted port with a blank": ("n", "Port ' 22'\n"),
    "two ports": ("n", "Port 22 23\n"),
    "no port": ("n", "Port\n"),
    # Keywords, blanks, quotes, comments
    "a quoted keyword": ("n", '"Port" 2222\n'),
    "an equals sign": ("n", "Port=2222\n"),
    "an equals sign with blanks": ("n", "Port = 2222\n"),
    "an equals sign with tabs": ("n", "Port\t=\t2222\n"),
    "two equals signs": ("n", "Port == 2222\n"),
    "odd case": ("n", 'pOrT "2222"\n'),
    "single quotes": ("n", "Port '2222'\n"),
    "leading blanks": ("n", "  \tPort 23\n"),
    "a form feed at the end": ("n", "Port 22\x0c\n"),
    "a carriage return": ("n", "Port 24\r\n"),
    "a comment behind a value": ("n", "Port 23 # c\n"),
    "a comment without a blank": ("n", "Port 23# c\n"),
    "a hash inside a value": ("n", "User a#b\n"),
    "a comment in place of a value": ("n", "User # b\n"),
    "two words": ("n", "User a b\n"),
    "an empty value": ("n", "User ''\n"),
    "quotes around blanks": ("n", 'User "a b"\n'),
    "an open quote": ("n", "User 'a\n"),
    "quotes inside a word": ("n", 'User a"b c"d\n'),
    "an open quote in a command": ("n", "ProxyCommand it's\n"),
    "a backslash before a letter": ("n", "User LAB\\bob\n"),
    "a backslash before a quote": ("n", 'User a\\"b\n'),
    "a backslash before a blank": ("n", "User a\\ b\n"),
    "two backslashes": ("n", "User a\\\\b\n"),
    "a backslash in quotes": ("n", 'User "a\\ b"\n'),
    "the first value wins": ("n", "Port 1\nPort 2\nHost *\n  Port 3\n"),
    # Host
    "case counts": ("gpu1 GPU1 Gpu1", "Host GPU1\n  Port 1\nHost gpu1\n  Port 2\n"),
    "names become lower case": ("GPU1", "Host gpu1\n  Port 2\n"),
    "a comment behind an alias": (
        "n m",
        "Host n # it's\n  Port 5\nHost m # a \" quote\n  Port 6\n",
    ),
    "an open quote in an alias": ("n", "Host 'n\n"),
    "negation": ("bad.lab x.lab", "Host *.lab !bad.lab\n  Port 4\n"),
    "negation first": ("n m", "Host !n *\n  Port 4\n"),
    "a comma is no separator": ("n", "Host n,m\n  Port 4\n"),
    "a question mark": ("abc ac", "Host a?c\n  Port 4\n"),
    "brackets are characters": ("a", "Host [ab]\n  Port 4\n"),
    "an empty pattern": ("a", "Host ''\n"),
    # Match
    "host=": ("n m", "Match host=n\n  HostName 192.0.2.11\n"),
    "host =": ("n", "Match host = n\n  Port 5\n"),
    "several with equals signs": ("n", "Match host  =  n user=root\n  Port 5\n"),
    "a quoted criterion": ("n", 'Match "host" "n"\n  Port 5\n'),
    "all": ("n", "Match ALL\n  Port 4\n"),
    "not all": ("n", "Match !all\n  Port 4\n"),
    "all behind one other": ("n m", "Match host n all\n  Port 4\n"),
    "all behind two others": ("n", "Match host n user x all\n  Port 4\n"),
    "all before others": ("n", "Match all host n\n"),
    "no criterion": ("n", "Match # x\n"),
    "no pattern": ("n", "Match host\n"),
    "a comment in place of a pattern": ("n", "Match host # x\n"),
    "a comment behind a pattern": ("n", "Match host n # c\n  Port 4\n"),
    "final": ("n", "Match final\n  Port 4\n"),
    "not final": ("n", "Match !final\n  Port 4\n"),
    "canonical without a reason": ("n", "Match canonical\n  Port 4\n"),
    "the final pass sees the host": (
        "n",
        "HostName web.lab\nHost *.lab\n  User bob\nMatch final host web.lab\n  Port 4\n",
    ),
    "host without case": ("n N", "Match host N\n  Port 4\n"),
    "originalhost without case": ("n N", "Match originalhost N\n  Port 4\n"),
    "user with case": ("n", "User Bob\nMatch user bob\n  Port 4\nMatch user Bob\n  Port 5\n"),
    "the default user": ("n", "Match user root,x\n  Port 4\n"),
    "localuser": ("n", "Match localuser root\n  Port 4\n"),
    "a list with negation": ("n m", "Match host !n,*\n  Port 4\n"),
    "a negated list": ("n m", "Match !host n\n  Port 4\n"),
    "exec with an equals sign": ("n", 'Match exec "test 1 = 1"\n  Port 4\n'),
    "exec that fails": ("n", "Match exec false\n  Port 4\n"),
    "exec with tokens": ("n m", 'Match exec "test %h%n = nn && test %p = 22"\n  Port 4\n'),
    "exec that a signal ends": ("n", 'Match exec "kill -9 $$"\n  Port 4\n'),
    "exec with an unknown token": ("n", 'Match exec "echo %z"\n'),
    "exec is not run in vain": ("n", 'Match host m exec "kill -9 $$"\n  Port 4\n'),
    "an unknown criterion": ("n", "Match hots n\n  Port 4\n"),
    # Host names
    "a token in the host's name": ("n N", "HostName %h.lab\n"),
    "a per cent sign": ("n", "HostName %%x%h\n"),
    "a token that is none there": ("n", "HostName %n\n"),
    "upper case": ("n", "HostName WEB\n"),
    "a short address": ("n", "HostName 127.1\n"),
    "an address in hexadecimal": ("n", "HostName 0x7f000001\n"),
    "an address in octal": ("n", "HostName 010.0.0.1\n"),
    "an address as a number": ("n", "HostName 2130706433\n"),
    "an IPv6 address": ("n ::0:1", "HostName ::0:1\n"),
    "an address of the other family": ("n", "AddressFamily inet6\nHostName 127.1\n"),
    # Jump hosts and proxies
    "tokens in a jump host": ("n", "User bob\nProxyJump %r@b-%h\n"),
    "no jump, but a command": ("n", "ProxyJump none\nProxyCommand relay %h %p\n"),
    "no jump, but a command, in two blocks": (
        "n",
        "Host n\n  ProxyJump none\nHost *\n  ProxyCommand relay %h %p\n",
    ),
    "no jump in capitals": ("n", "ProxyJump NONE\nProxyCommand relay\n"),
    "no command, then a jump": ("n", "ProxyCommand none\nProxyJump b\n"),
    "no command, then a jump, in two blocks": (
        "n",
        "Host n\n  ProxyCommand none\nHost *\n  ProxyJump b\n",
    ),
    "a command, then a jump": ("n", "ProxyCommand x\nProxyJump b\n"),
    "a command, then no jump": ("n", "ProxyCommand x\nProxyJump none\n"),
    "a jump, then a command": ("n", "ProxyJump b\nProxyCommand x\n"),
    "no jump, then a jump": ("n", "ProxyJump none\nProxyJump b\n"),
    "no jump with a comment": ("n", "ProxyJump none # c\n"),
    "a jump with a comment": ("n", "ProxyJump b # c\n"),
    "a jump with blanks": ("n", "ProxyJump a , b\n"),
    "a jump by an IPv6 address": ("n", "ProxyJump u@[::1]:2222\n"),
    "an IPv6 address without brackets": ("n", "ProxyJump ::1\n"),
    "a jump by URI": ("n", "ProxyJump c,ssh://u@h:22/\n"),
    "a jump by URI with parameters": ("n", "ProxyJump c,ssh://u;x@h\n"),
    "a jump by URI with a path": ("n", "ProxyJump ssh://h/x\n"),
    "a jump by URI with an IPv6 address": ("n", "ProxyJump ssh://u@[::1]:22\n"),
    "a jump by URI with an encoded user": ("n", "ProxyJump ssh://a%41@h\n"),
    "a jump with an empty user": ("n", "ProxyJump @b\n"),
    "a jump with a token as port": ("n", "ProxyJump b:%p\n"),
    "a jump with a service as port": ("n", "ProxyJump b:ssh\n"),
    "a jump with an empty port": ("n", "ProxyJump b:\n"),
    "a jump with a slash": ("n", "ProxyJump b/\n"),
    "a jump with an equals sign": ("n", "ProxyJump =b\n"),
    "a bad jump of another host": ("n", "Host m\n  ProxyJump a,b:x\n"),
    "a command as it stands": ("n", "ProxyCommand = nc -x a %h %p # c\n"),
    "a passed descriptor": ("n", "ProxyUseFdpass true\nProxyCommand x\n"),
    # Environment
    "SetEnv": ("n", "SetEnv FOO=bar\n"),
    "a second SetEnv": ("n", "SetEnv FOO=bar\nSetEnv A=b\n"),
    "several in one SetEnv": ("n", "SetEnv A=\"x y\" B='z' A=3\n"),
    "SetEnv without a value": ("n", "SetEnv A\n"),
    "SendEnv": ("n", "SendEnv LANG LC_*\nSendEnv X* -LC_*\n"),
    "SendEnv with a value": ("n", "SendEnv A=b\n"),
    # Files and agents
    "all tokens": ("n", TOKENS),
    "the key alias is the name that was asked for": ("N", "UserKnownHostsFile %k\n"),
    "other users' homes": ("n", "UserKnownHostsFile ~root/x ~//y\n"),
    "no such user": ("n", "UserKnownHostsFile ~nosuchuser/x\n"),
    "a variable": ("n", "UserKnownHostsFile ${JUDGED}/x ${JUDGED}%%{x}\n"),
    "a variable that is not set": ("n", "UserKnownHostsFile ${NOT_SET_HERE}/x\n"),
    "a variable without a name": ("n", "UserKnownHostsFile ${}/x\n"),
    "a variable that is not closed": ("n", "UserKnownHostsFile ${JUDGED\n"),
    "no known hosts": ("n", "UserKnownHostsFile none\nGlobalKnownHostsFile none\n"),
    "none beside a file": ("n", "UserKnownHostsFile a none\n"),
    "the system's known hosts": ("n", "GlobalKnownHostsFile ~/x y\n"),
    "an unknown token in a file": ("n", "UserKnownHostsFile a%z\n"),
    "a lone per cent sign": ("n", "UserKnownHostsFile a%\n"),
    "key files": ("n", "IdentityFile a\nIdentityFile b\nIdentityFile a\nIdentityFile2 c\n"),
    "no key files": ("n", "IdentityFile none\n"),
    "certificates": ("n", "CertificateFile c\nCertificateFile d\n"),
    "the agent by a variable": ("n", "IdentityAgent $LAB_AGENT\n"),
    "the agent by an expanded variable": ("n", "IdentityAgent ${JUDGED}/a\n"),
    "the agent by tokens": ("n", "IdentityAgent ~/a-%h\n"),
    "no agent": ("n", "IdentityAgent none\n"),
    "the usual agent": ("n", "IdentityAgent SSH_AUTH_SOCK\n"),
    "only these keys": ("n", "IdentitiesOnly true\n"),
    "a flag that is none": ("n", "IdentitiesOnly maybe\n"),
    "the key's alias in lower case": ("n", "HostKeyAlias Foo\n"),
    "revoked keys": ("n", "RevokedHostKeys /r\n"),
    "no revoked keys": ("n", "RevokedHostKeys none\n"),
    "keys from a command": ("n", "KnownHostsCommand /bin/x %h\n"),
    # The rest
    "families": ("n", "AddressFamily INET6\n"),
    "a family that is none": ("n", "AddressFamily ipv4\n"),
    "where to dial from": ("n", "BindAddress 127.0.0.1\nBindInterface lo\n"),
    "no keys at all": ("n", "PubkeyAuthentication no\n"),
    "old names": ("n", "DSAAuthentication no\nPubkeyAcceptedKeyTypes ssh-ed25519\n"),
    "host key algorithms": ("n", "HostKeyAlgorithms ssh-ed25519,rsa-sha2-512\n"),
    "methods": ("n", "PreferredAuthentications gssapi-with-mic,publickey\n"),
    "algorithms": (
        "n",
        "Ciphers aes128-ctr,aes256-ctr\nKexAlgorithms curve25519-sha256\nMACs hmac-sha2-256\n",
    ),
    "canonical names": ("n", "CanonicalizeHostname always\nCanonicalizeMaxDots 0\n"),
    "domains": ("n", "CanonicalDomains LAB.example. x_y\n"),
    "a bad domain": ("n", "CanonicalDomains -x\n"),
    "canonical in the second pass alone": ("n", "Match final\n  CanonicalizeMaxDots 5\n"),
    "an Include that matches nothing": ("n", "Host n\n  Include /nonexistent/*\n  Port 4\n"),
}

ENVIRONMENT = {"JUDGED": "/a value"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each fact's file."""
    folder = tmp_path_factory.mktemp("facts")
    found = {}
    for number, (fact, (_, text)) in enumerate(FACTS.items()):
        found[fact] = folder / str(number)
        found[fact].write_text(text)
    return found


@pytest.fixture(scope="module")
def judgements(files: dict[str, Path]) -> dict[str, dict[str, Judgement]]:
    """What OpenSSH says of each fact's names, by fact and name."""
    env = {**os.environ, **ENVIRONMENT}
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda f: judged(files[f], FACTS[f][0].split(), env=env), FACTS)
    return dict(zip(FACTS, found, strict=True))


@pytest.mark.parametrize("fact", FACTS)
def test_we_read_it_as_openssh_does(
    fact: str,
    files: dict[str, Path],
    judgements: dict[str, dict[str, Judgement]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every value that is about reaching a host, or refused by both."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for name, theirs in judgements[fact].items():
        assert differences(theirs, read_by_us(files[fact], name)) == {}, FACTS[fact][1]
