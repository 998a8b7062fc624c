"""Files that are something else than what an importer takes them for: refused with what they are.

Judged by the first lines alone, and only by forms that no host list has. Nothing of the file is
repeated.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator

from orchestrator.core.base.errors import UsageError
from orchestrator.parsing.importers.text_lines import split_lines

_VAULT = re.compile(r"\$ANSIBLE_VAULT;")
_MARKUP = re.compile(r"<(!doctype|html|head|body|\?xml)\b", re.IGNORECASE)
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]+-----")
_SCRIPT = re.compile(r"#!")
_JSON = re.compile(r'\{\s*("|\}|$)|\[\s*([\]{"]|$)')
_YAML_KEY = re.compile(r"""("[^"]*"|'[^']*'|[^\s\[\]{}=:"'#,;]+)\s*:(\s|$)""")
_YAML_ITEM = re.compile(r"-\s+\S")
# What a program says in place of hosts, when its output was taken for them.
_MESSAGE = re.compile(
    r"[\w./-]{1,60}: (error|fatal|warning|unrecognized option|invalid option)\b"
    r"|[^\s:][^:\n]{0,60}: .{0,120}\b(command not found|No such file or directory|Permission denied"
    r"|Connection (refused|timed out)|Unable to contact|could not resolve)",
    re.IGNORECASE,
)
_INI_VALUE = re.compile(r"[A-Za-z][\w.-]*(\s*=|\s*:\s)(?!.*\bansible_)")
_ADDRESS = r"([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9A-Fa-f]*:[0-9A-Fa-f:.]+(%\w+)?)"
_HOSTS_FILE = re.compile(rf"{_ADDRESS}\s+[A-Za-z][A-Za-z0-9._-]*(\s+[A-Za-z0-9._-]+)*\s*(#.*)?")
_SSH_CONFIG = re.compile(r"(host|match)(\s+|\s*=\s*)[^=\s]", re.IGNORECASE)
_SSH_KEYWORD = re.compile(
    r"(hostname|user|port|identityfile|proxyjump|proxycommand|forwardagent|stricthostkeychecking)"
    r"(\s+|\s*=\s*)\S",
    re.IGNORECASE,
)
# A line of sshd(8)'s known_hosts or authorized_keys: every key in base64 begins with its length.
_SSH_KEY = re.compile(
    r"(?:.{0,1000}\s)?(ssh-[a-z0-9]+|ecdsa-sha2-\w+|sk-[a-z0-9-]+)(-cert-v01)?(@openssh\.com)?\s+AAAA"
)
_SLURM = re.compile(r"(NodeName|PartitionName|ClusterName|SlurmctldHost)\s*=", re.IGNORECASE)
_SECTION = re.compile(r"\[[A-Za-z_][^\]\s:]*(:\w+)?\]\s*([#;].*)?")
_PLAIN_SECTION = re.compile(r"""\[[A-Za-z_][\w .-]*("[^"]*")?\]\s*([#;].*)?""")
_ANSIBLE_VALUE = re.compile(r"\bansible_[a-z_]+\s*[=:]")
_CSV_COLUMNS = frozenset(
    "address addr fqdn gpus group groups host host_name hostname id ip ip_address ipaddress name "
    "node nodename os port rack role site slots state status type user username zone".split()
)
_MAX_LINES = 2000

Test = Callable[[list[str]], bool]


def refuse_other(text: str, source: str, format: str) -> None:
    """Raise :class:`UsageError` when ``text`` is no file of ``format`` but a known other one.

    ``format`` is one of ``FORMATS``.
    """
    lines = _significant_lines(text)
    if not lines:
        what = "the file is empty" if not text.strip() else "the file holds comments only"
        raise UsageError(
            "no host found",
            id="import.empty",
            where=source,
            why=what,
            remedy="name the file that holds the hosts",
        )
    for what, remedy, own, matches in _KINDS:
        if matches(lines):
            if format in own:
                return
            raise UsageError(
                f"this is {what}, not {FORMATS[format]}",
                id="import.other-kind",
                where=source,
                remedy=remedy,
            )


def is_yaml(text: str) -> bool:
    """Whether ``text`` begins as YAML or JSON of mappings and lists does; it is not empty."""
    lines = _significant_lines(text)
    return _is_json(lines) or _is_yaml(lines)


def _significant_lines(text: str) -> list[str]:
    lines = (line.strip() for line in split_lines(text)[:_MAX_LINES])
    return [line for line in lines if line and (line[0] not in "#;" or line.startswith("#!"))]


def _first_content(lines: list[str]) -> Iterator[str]:
    """The first line that says something: after the marks that begin a YAML document."""
    for line in lines:
        if not line.startswith(("---", "%YAML", "#!")):
            yield line
            return


def _first_line_test(pattern: re.Pattern[str]) -> Test:
    return lambda lines: pattern.match(lines[0]) is not None


def _is_json(lines: list[str]) -> bool:
    return _JSON.match(lines[0]) is not None


def _is_yaml(lines: list[str]) -> bool:
    if lines[0].startswith(("---", "%YAML")):
        return True
    return any(_YAML_KEY.match(line) or _YAML_ITEM.match(line) for line in _first_content(lines))


def _is_playbook(lines: list[str]) -> bool:
    return any(_YAML_ITEM.match(line) for line in _first_content(lines))


def _is_toml(lines: list[str]) -> bool:
    """Whether they set a value; tables alone may be an inventory's groups."""
    try:
        data = tomllib.loads("\n".join(lines))
    except (tomllib.TOMLDecodeError, RecursionError):
        return False
    return any(not isinstance(value, dict) or value for value in data.values())


def _is_ini_settings(lines: list[str]) -> bool:
    """Sections of ``name = value``, where a list of hosts has hosts."""
    values = [line for line in lines if not _PLAIN_SECTION.fullmatch(line)]
    return lines[0] not in values and bool(values) and _INI_VALUE.match(values[0]) is not None


def _is_hosts_file(lines: list[str]) -> bool:
    return all(_HOSTS_FILE.fullmatch(line) for line in lines[:20])


def _is_csv(lines: list[str]) -> bool:
    names = [name.strip(" \t\"'").lower() for name in re.split(r"[,;\t]", lines[0])]
    return len(names) > 1 and _CSV_COLUMNS.issuperset(name.replace(" ", "_") for name in names)


def _is_ssh_config(lines: list[str]) -> bool:
    return any(_SSH_CONFIG.match(line) for line in lines) and any(
        _SSH_KEYWORD.match(line) for line in lines
    )


def _is_slurm_conf(lines: list[str]) -> bool:
    return any(_SLURM.match(line) for line in lines)


def _is_ansible_ini(lines: list[str]) -> bool:
    return _SECTION.fullmatch(lines[0]) is not None or any(map(_ANSIBLE_VALUE.search, lines))


_CONVERT = "import the output of: ansible-inventory -i FILE --list --yaml"
# What each importer reads.
FORMATS = {
    "hostfile": "a hostfile",
    "ansible": "an Ansible inventory",
    "ssh-config": "an ssh_config",
    "slurm": "a list or table of Slurm",
}
# What it is, what to do, the formats that read it, and how it is recognised; the first one counts.
_KINDS: tuple[tuple[str, str, frozenset[str], Test], ...] = (
    (
        "encrypted by Ansible Vault",
        "import the output of: ansible-vault view FILE",
        frozenset(),
        _first_line_test(_VAULT),
    ),
    (
        "an HTML or XML page (a login page, perhaps)",
        "download the file itself",
        frozenset(),
        _first_line_test(_MARKUP),
    ),
    (
        "a key or certificate",
        "name the file that holds the hosts",
        frozenset(),
        _first_line_test(_PEM),
    ),
    (
        "a file of SSH keys (known_hosts, authorized_keys)",
        "name the file that holds the hosts",
        frozenset(),
        _first_line_test(_SSH_KEY),
    ),
    ("a script", f"run it first; for Ansible, {_CONVERT}", frozenset(), _first_line_test(_SCRIPT)),
    (
        "a message of the program that was to print the hosts",
        "run that program alone, and see that it ends well",
        frozenset(),
        _first_line_test(_MESSAGE),
    ),
    (
        "an Ansible playbook or another YAML list",
        "name the inventory that the playbook runs on",
        frozenset(),
        _is_playbook,
    ),
    (
        "JSON",
        "leave off --json; an Ansible inventory in JSON: cluster import ansible",
        frozenset({"ansible"}),
        _is_json,
    ),
    (
        "YAML",
        "an Ansible inventory: cluster import ansible; one of ours needs no import",
        frozenset({"ansible"}),
        _is_yaml,
    ),
    (
        "a hosts(5) file, which says what names mean and not which machines are yours",
        "write one host a line, and import it as a hostfile",
        frozenset(),
        _is_hosts_file,
    ),
    (
        "CSV, a table with a header of its own",
        "write one host a line, and import it as a hostfile",
        frozenset(),
        _is_csv,
    ),
    (
        "an ssh_config",
        "cluster import ssh-config",
        frozenset({"ssh-config"}),
        _is_ssh_config,
    ),
    (
        "a configuration of Slurm",
        "cluster import slurm",
        frozenset({"slurm"}),
        _is_slurm_conf,
    ),
    ("TOML", f"for Ansible, {_CONVERT}", frozenset(), _is_toml),
    (
        "a file of settings (INI), which lists no hosts",
        "name the file that holds the hosts",
        frozenset(),
        _is_ini_settings,
    ),
    (
        "an Ansible inventory",
        "cluster import ansible",
        frozenset({"ansible"}),
        _is_ansible_ini,
    ),
)
