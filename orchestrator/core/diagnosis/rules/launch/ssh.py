"""Launches over SSH that fail before a rank runs: what ssh, pdsh and their callers write."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Confidence,
    Domain,
    LogRole,
    Rule,
    sign,
)

_HOST = r"(?P<target>[\w.:-]{1,120}?)"
# Where a message names no host, pdsh and its like do, before it.
_OF = r"(?:^(?!ssh\b|orted\b)(?P<target>[A-Za-z0-9][\w.-]{0,79}): )?"
_CONNECT = rf"connect to (?:host )?{_HOST} port (?P<port>\d{{1,5}}): "

RULES = (
    Rule(
        id="SSH-CONN-001",
        title="SSH connection refused",
        domain=Domain.LAUNCH,
        cause="the launch failed: nothing accepts SSH connections on {where}, port {port}",
        remedy="start sshd there, or give the right port (Port in ~/.ssh/config); "
        "orchestrate doctor -C CLUSTER checks every node",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=90,
        signs=(
            sign("Connection refused", _CONNECT + "Connection refused"),
            sign(
                "Unable to connect to port",
                rf"Unable to connect to port (?P<port>\d{{1,5}}) on {_HOST}(?:$|[\s'\"])",
            ),
            sign("connect: Connection refused", rf"pdsh@[\w.-]{{1,80}}: {_HOST}: connect: Conn"),
        ),
        defaults={"port": "22"},
        references=("OpenSSH",),
    ),
    Rule(
        id="SSH-CONN-002",
        title="SSH host does not answer",
        domain=Domain.LAUNCH,
        cause="the launch failed: {where} does not answer on its SSH port ({detail})",
        remedy="ping and ip route get HOST from the launching node; a firewall drops the packets, "
        "or the node is down",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=90,
        signs=(
            sign(
                "connect to host",
                rf"connect to host {_HOST} port \d{{1,5}}: (?P<detail>(?:Connection|Operation) "
                r"timed out|No route to host|Network is unreachable|Host is down)",
            ),
            sign(
                "onnection timed out during banner exchange",
                r"(?P<detail>[Cc]onnection timed out during banner exchange)",
            ),
        ),
        defaults={"detail": "no answer"},
        references=("OpenSSH",),
    ),
    Rule(
        id="SSH-CONN-003",
        title="SSH connection closed before login",
        domain=Domain.LAUNCH,
        # A prefix is the node that was dialled (pdsh) or the one that dials (a rank's log).
        cause="the launch failed: {where}: an SSH server closed the connection before the login "
        "({detail})",
        remedy="MaxStartups in sshd_config when many start at once, fail2ban or hosts.deny, a full "
        "disk or an ended sshd on that node",
        advice=Advice.RETRY,
        weight=86,
        signs=(
            sign(
                "ssh_exchange_identification",
                _OF + r"ssh_exchange_identification: (?P<detail>.{1,80})",
            ),
            sign(
                "kex_exchange_identification",
                _OF + r"kex_exchange_identification: (?P<detail>.{1,80})",
            ),
            sign(
                "Error reading SSH protocol banner",
                r"(?P<detail>Error reading SSH protocol banner)",
            ),
        ),
        defaults={"detail": "closed"},
        references=("OpenSSH",),
    ),
    Rule(
        id="SSH-NAME-001",
        title="SSH host name does not resolve",
        domain=Domain.LAUNCH,
        cause="the launch failed: the name {where} does not resolve on the launching node",
        remedy="add the name to DNS or /etc/hosts, or use an address (HostName in ~/.ssh/config)",
        confidence=Confidence.CERTAIN,
        weight=90,
        signs=(
            sign("Could not resolve hostname", rf"Could not resolve hostname {_HOST}(?:: |\s|$)"),
            sign("gethostbyname", rf"pdsh@.{{1,80}}gethostbyname\(\"?{_HOST}\"?\) failed"),
        ),
        references=("OpenSSH",),
    ),
    Rule(
        id="SSH-AUTH-001",
        title="SSH login refused",
        domain=Domain.LAUNCH,
        cause="the launch failed: {where} accepted none of the offered SSH keys ({detail})",
        remedy="ssh-copy-id USER@HOST for the account that launches; the key must work without a "
        "passphrase or be in an agent: ssh -o BatchMode=yes HOST true",
        confidence=Confidence.CERTAIN,
        weight=90,
        signs=(
            sign(
                "ermission denied (",
                rf"\S{{1,60}}@{_HOST}: (?P<detail>[Pp]ermission denied \([\w,-]{{3,80}}\))",
            ),
            sign(
                "ermission denied (",
                _OF + r"(?P<detail>[Pp]ermission denied \([\w,-]{3,80}\))",
            ),
            sign("ermission denied, please", r"(?P<detail>[Pp]ermission denied), please try again"),
            sign(
                "Too many authentication failures",
                r"(?:from|disconnect(?:ed)? from) "
                rf"{_HOST} port .{{0,40}}(?P<detail>Too many authentication failures)",
            ),
            sign("Too many authentication failures", r"(?P<detail>Too many authentication fail)"),
            sign("AuthenticationException", r"(?P<detail>AuthenticationException)"),
            sign(
                "No authentication methods available",
                rf"(?: on {_HOST}, is localhost: \w{{4,5}}, exception: )?"
                r"(?P<detail>No authentication methods available)",
            ),
        ),
        defaults={"detail": "refused"},
        references=("OpenSSH",),
    ),
    Rule(
        id="SSH-KEY-001",
        title="SSH host key not trusted",
        domain=Domain.LAUNCH,
        cause="the launch failed: the SSH host key of {where} is unknown or has changed",
        remedy="compare the fingerprint on that node's console, then ssh-keyscan -H HOST >> "
        "~/.ssh/known_hosts (ssh-keygen -R HOST removes an old one)",
        confidence=Confidence.CERTAIN,
        weight=90,
        signs=(
            sign(
                "host key is known for",
                rf"No \w{{1,20}} host key is known for {_HOST} and you have requested strict",
            ),
            sign("Host key verification failed", _OF + "Host key verification failed"),
            sign(
                "Host key for", r"Host key for (?P<target>[\w.:-]{1,120}) has changed and you have"
            ),
            sign("REMOTE HOST IDENTIFICATION HAS CHANGED"),
        ),
        references=("OpenSSH",),
    ),
    Rule(
        id="SSH-ALGO-001",
        title="No common SSH algorithm",
        domain=Domain.LAUNCH,
        cause="the launch failed: no common SSH algorithm with {where} ({detail})",
        remedy="allow the offered one for this host in ~/.ssh/config (HostKeyAlgorithms, "
        "KexAlgorithms), or update the server",
        confidence=Confidence.CERTAIN,
        weight=90,
        signs=(
            sign(
                "Unable to negotiate with",
                rf"Unable to negotiate with {_HOST} port \d{{1,5}}: (?P<detail>.{{1,120}})",
            ),
        ),
        defaults={"detail": "no matching algorithm"},
        references=("OpenSSH",),
    ),
    Rule(
        id="SSH-FILE-001",
        title="SSH refuses its own files",
        domain=Domain.LAUNCH,
        cause="ssh on {where} refuses a key or its configuration ({detail})",
        remedy="chmod 600 for keys and ~/.ssh/config, owned by the account that runs ssh",
        confidence=Confidence.CERTAIN,
        weight=91,
        signs=(
            sign("UNPROTECTED PRIVATE KEY FILE", r"(?P<detail>UNPROTECTED PRIVATE KEY FILE)"),
            sign(
                "Bad owner or permissions on",
                r"(?P<detail>Bad owner or permissions on \S{1,160})",
            ),
            sign(
                "Load key ",
                r"(?P<detail>Load key \"[^\"]{1,160}\": (?:invalid format|bad permissions|error in "
                r"libcrypto))",
            ),
            sign("Bad configuration option", r"(?P<detail>Bad configuration option: \S{1,80})"),
        ),
        defaults={"detail": "permissions"},
        references=("OpenSSH",),
    ),
    Rule(
        id="SSH-LOST-001",
        title="SSH connection lost",
        domain=Domain.FABRIC,
        cause="the SSH connection to {where} was lost",
        remedy="see whether the node is up; ServerAliveInterval keeps idle connections open; "
        "orchestrate run keeps ranks alive without one",
        role=LogRole.VAGUE,
        advice=Advice.RETRY,
        weight=50,
        signs=(
            sign("client_loop: send disconnect"),
            sign("not responding", rf"Timeout, server {_HOST} not responding"),
            sign("closed by remote host", rf"Connection to {_HOST} closed by remote host"),
            sign("packet_write_wait", r"packet_write_wait: Connection to"),
        ),
        consequence="lost an SSH connection",
        references=("OpenSSH",),
    ),
    Rule(
        id="SSH-HOST-001",
        title="A host of the hostfile cannot be reached over SSH",
        domain=Domain.LAUNCH,
        cause="the launcher cannot log in to {where} over SSH without a password",
        remedy="ssh HOST true from the launching node shows the reason; one node alone needs no "
        "hostfile",
        confidence=Confidence.CERTAIN,
        weight=84,
        signs=(
            sign("not reachable via ssh", rf"host={_HOST} was not reachable via ssh"),
            sign(
                "returned non-zero exit status 255",
                rf"Command 'ssh .{{0,120}} {_HOST} hostname' returned non-zero",
            ),
            sign("UNREACHABLE!"),
        ),
        references=("DeepSpeed", "Ansible"),
    ),
    Rule(
        id="SSH-RCMD-001",
        title="pdsh uses rsh instead of SSH",
        domain=Domain.LAUNCH,
        cause="pdsh tried rsh, which {where} does not offer ({detail})",
        remedy="--env PDSH_RCMD_TYPE=ssh, or pdsh -R ssh",
        confidence=Confidence.CERTAIN,
        weight=92,
        signs=(
            sign("rcmd:", rf"pdsh@[\w.-]{{1,80}}: {_HOST}: (?P<detail>rcmd: .{{1,80}})"),
            sign("No such rcmd module", r"(?P<detail>No such rcmd module \"?\w{1,20})"),
            sign("mcmd:", rf"pdsh@[\w.-]{{1,80}}: {_HOST}: (?P<detail>mcmd: .{{1,80}})"),
        ),
        defaults={"detail": "rcmd"},
        references=("pdsh", "DeepSpeed"),
    ),
)
