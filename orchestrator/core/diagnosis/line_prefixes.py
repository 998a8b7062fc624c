"""Who wrote a log line, by what launchers, collectors and loggers put before it.

One line may carry several: ``node: time level [rank3]: text``. They are taken off one after the
other. Every repetition is bounded, so that no line can hold the reader up.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from orchestrator.core.launchers import SCHEDULERS

SCHEDULER_PREFIXES = tuple(s.logs.prefix for s in SCHEDULERS if s.logs.prefix)
MAX_PREFIXES = 10
MAX_RANK_DIGITS = 4  # after a colon; longer ones are the process ids of Open MPI

_NAME = r"[A-Za-z0-9][\w.-]{0,62}"
_LEVEL = r"(?:TRACE|DEBUG|INFO|NOTICE|SUCCESS|WARN(?:ING)?|ERROR|ERR|CRITICAL|FATAL|SEVERE|PANIC)"
_CLOCK = r"[0-2]\d:[0-5]\d:[0-6]\d(?:[.,]\d{1,9})?"
_SOURCE = r"[\w./-]{1,100}\.(?:py|pyx|cc|cpp|cu|cuh|c|h|hpp|rs|go)"
# Words that stand before ": " with a digit, or with dots, and are no hosts.
_NO_HOST = (
    r"(?i:(?:python|rank|step|epoch|iter|iteration|layer|line|eth|ib|enp|ens|eno|cuda|cudnn|nccl"
    r"|sha|md|utf|fp|bf|tf|int|uint|float|http|ipv|tcp|sm_?|cu|py|mlx|nvme|sd|ssh|xid|tp|dp|pp|ep|w"
    r"|e|i|f|v|h|x|l|p|q|s|t|warning|error|errno|exit|code|task|stage|attempt|retry|try|phase|chunk"
    r"|shard|batch|device|dev|arg|var|test|example|base|amd|arm)\d|[abhv]\d00\b|lib[a-z])"
)
_NO_HOST_END = (
    r"(?<!Error)(?<!Exception)(?<!Warning)(?<!\.[ch])(?<!\.(?:so|py|sh|cc|cu|rs|go|pt))"
    r"(?<!\.(?:cpp|yml|txt|log|bin))(?<!\.(?:json|yaml|toml))"
)
_DOMAINS = (
    r"com|org|net|edu|gov|int|io|ai|eu|de|fr|uk|ch|at|nl|be|es|it|se|no|fi|dk|pl|cz|us|ca|jp|cn|kr"
    r"|in|au|br|local|localdomain|internal|intern|lan|home|cluster|hpc|svc|test|example|invalid"
)
_LABEL = r"[A-Za-z0-9][A-Za-z0-9-]{0,62}"
_HOST = (
    r"(?:"
    r"\d{1,3}(?:\.\d{1,3}){3}"  # IPv4
    r"|(?=[0-9a-fA-F:]{0,40}(?:::|[a-fA-F]))[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}"  # IPv6
    # Letters and digits or hyphens in the first label, else a domain that is known.
    rf"|(?!{_NO_HOST})(?=[A-Za-z-]{{1,60}}\d|[0-9]{{1,9}}[a-z]){_LABEL}"
    rf"|[a-z]{{2,20}}-[a-z](?![\w.-])"  # gpu-b
    rf"|(?!{_NO_HOST})(?=[A-Za-z]{{1,60}}[\d-]){_LABEL}(?:\.[A-Za-z0-9-]{{1,63}}){{1,6}}"
    rf"|[A-Za-z][a-z]{{0,60}}(?:\.[a-z0-9-]{{1,63}}){{0,5}}\.(?:{_DOMAINS})"
    rf"){_NO_HOST_END}"
)

# A plain word is a host's name only where the next thing is a head of its own.
_WORD = r"(?P<node>[a-z][a-z0-9]{1,30}(?:-[a-z0-9]{1,30}){0,4})"
_NO_WORD = r"(?:errors?|err|warn|warning|info|debug|fatal|critical|trace|std\w{2,3}|root|log): "
_ANOTHER_HEAD = (
    r"\[rank\d|\[default\d|\[20\d\d-\d\d-\d\d"
    # What a login on another host ends with: its shell's words, or those of ssh.
    r"|(?:ba|da|z|k)?sh: |ssh: |Permission denied \(|Host key verification failed"
)

_HOST_NAME = rf"(?!python){_NAME}"
_DATE = r"\d{4}[-/.]\d\d[-/.]\d\d"
_ZONE = r"(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?"
_GLOG = rf"(?:1[0-2]|0?[1-9])[0-3]\d {_CLOCK} {{1,8}}(?:\d{{1,9}} )?{_SOURCE}:\d{{1,6}}\] ?"

# In the order in which they are tried, by what they begin with.
BRACKETED = (
    # Ranks: torch, torchrun --tee, Lightning, mpirun (old and new).
    r"\[(?:rank|RANK|rank: ?|RANK ) ?(?P<rank>\d{1,6})\]:? ?",
    r"\[(?:default|trainer|worker)(?P<local>\d{1,6})\]:? ?",
    r"\[(?:\d{1,9}|[\w.@-]{1,80}@\d{1,6}),(?P<rank>\d{1,6})\](?:<std(?:out|err|diag)>)?: ?",
    rf"\[\d{{1,9}},mpirank:(?P<rank>\d{{1,6}}),(?P<node>{_NAME})\](?:<std(?:out|err)>)?: ?",
    # Times, with what servers of models put beside them; dmesg's.
    rf"\[{_DATE} {_CLOCK} TP(?P<rank>\d{{1,4}})(?: EP\d{{1,4}})?\] ?",
    rf"\[{_DATE} {_CLOCK} [A-Z] \d{{1,9}} \d{{1,9}}\] ?",
    rf"\[{_DATE}[T _-]{_CLOCK}{_ZONE}(?: [A-Z]{{2}}\d{{1,4}}){{0,4}}\][ :,|-]{{0,4}}",
    rf"\[\d\d/\d\d/(?:20)?\d\d[ -]{_CLOCK}\][ :,|-]{{0,4}}",
    rf"\[(?:[A-Z][a-z]{{2}} ){{2}} ?\d{{1,2}} {_CLOCK} \d{{4}}\] ?",
    rf"\[{_CLOCK}(?: TP(?P<rank>\d{{1,4}}))?\] {{0,4}}",
    r"\[ {0,8}\d{1,10}\.\d{3,9}\] ?",  # dmesg, UCX
    rf"\[[IWEFC]{_GLOG}",
    rf"\[[IWEFC] {_SOURCE}:\d{{1,6}}\] ?",
    rf"\[ ?(?P<level>{_LEVEL}) ?\][ :|-]{{0,12}}",
    r"\[(?P<level>[EFWID])\] ",
    # Where in the program: file and line, logger, thread.
    rf"\[{_SOURCE}:\d{{1,6}}(?::[\w<>.]{{1,60}})?\] ?",
    (
        r"\[(?:MainThread|MainProcess|Thread-\d{1,4}|TRT-LLM|TensorRT-LLM|stdout|stderr|root"
        r"|[a-z_]{1,40}(?:\.[a-z_]{1,40}){1,6})\] ?"
    ),
    # Kubernetes, parallel-ssh; then ours and others; Open MPI's is [node:pid].
    r"\[pod/(?P<node>[\w.-]{1,253})/[\w.-]{1,63}\] ?",
    rf"\[\d{{1,6}}\] {_CLOCK} \[(?:SUCCESS|FAILURE)\] (?P<node>{_NAME}) ",
    rf"\[(?P<node>{_NAME})/(?P<rank>\d{{1,6}})\]:? ",
    rf"\[(?P<node>{_NAME}):(?P<rank>\d{{1,{MAX_RANK_DIGITS}}})\]:? ",
    rf"\[(?P<node>{_NAME}):\d{{5,9}}(?::\d{{1,4}})?\]:? ",
    rf"\[(?P<node>{_NAME})/launcher\] ",
    rf"\[(?P<node>{_HOST})\] ?(?=\[)",
    r"\[(?P<node>(?:host|node|machine|vm|compute|cn|gn|dgx|hgx)[-_]?\d{1,5})\]:? ",
)
PARENTHESISED = (
    # Workers and actors: (Worker_TP1 pid=41), (Actor rank=1 pid=4, ip=192.0.2.7), (raylet, ip=...).
    r"\((?!\w{0,40}_(?:DP|PP)[1-9])\w{0,40}?_TP(?P<rank>\d{1,4})(?:_EP\d{1,4})? pid=\d{1,9}\) ?",
    (
        r"\((?:[^()\n]{0,80}?(?:\([^()\n]{0,80}\))? )?(?:rank=(?P<rank>\d{1,6}) ?,? ?)?pid=\d{1,9}"
        r"(?:, ip=(?P<node>[\w.:-]{1,60}))?[^()\n]{0,40}\) ?"
    ),
    (
        r"\((?:raylet|gcs_server|autoscaler[^)\n]{0,20}|core_worker)"
        r"(?:, ip=(?P<node>[\w.:-]{1,60}))?\) ?"
    ),
    rf"\((?P<level>{_LEVEL})\)[ :|-]{{0,12}}",
    rf"\({_DATE}[T _-]{_CLOCK}{_ZONE}\)[ :,|-]{{0,4}}",
)
NUMBERED = (
    # srun --label; not TensorRT's codes, behind which it says where in its source.
    r" {0,6}(?P<rank>\d{1,6}) ?: (?!\[\w{1,60}\.(?:cpp|cu|h)::)",
    r"\d{1,7} \| (?:\d{10,13} \| )?",  # numbered lines
    rf"{_DATE}[T _-]{_CLOCK}{_ZONE}[ :,|-]{{0,4}}",
    rf"\d\d/\d\d/(?:20)?\d\d[ -]{_CLOCK}[ :,|-]{{0,4}}",
    rf"[01]\d-[0-3]\d {_CLOCK} ",
    rf"{_CLOCK}[ :,|-]{{1,4}}",
)
WORDED = (
    # Syslog and the journal, with the host's name.
    (
        rf"[A-Z][a-z]{{2}} {{1,2}}\d{{1,2}} {_CLOCK} (?:(?P<node>{_NAME}) "
        r"[\w./@-]{1,60}(?:\[\d{1,9}\])?: )?"
    ),
    rf"(?P<node>{_HOST_NAME}) (?:kernel|[\w./@-]{{1,60}}\[\d{{1,9}}\]): ",
    # Levels; the letters of Google's and torch's loggers tell nothing of how a program goes on.
    rf"[IWEFC]{_GLOG}",
    rf"(?P<level>{_LEVEL}):[\w.]{{1,80}}:",
    r"time=\"?[\dT:.Z+-]{19,40}\"? level=(?P<level>\w{4,8})(?: source=\S{1,80})?(?: msg=)?\"?",
    rf"(?P<level>{_LEVEL})[ :|-]{{1,12}}",
    *(prefix.format(node=rf"(?P<node>{_NAME})") for prefix in SCHEDULER_PREFIXES),
    # NCCL; its own words follow, which rules look for, so that only who is taken from it.
    rf"(?=(?P<node>{_NAME}):\d{{1,9}}:\d{{1,9}} \[\d{{1,3}}\] )",
    # Where in the program: file and line, logger.
    rf"{_SOURCE}:\d{{1,6}}(?::[\w<>.]{{1,60}})?(?:\] ?|: | -- )",
    r"[a-z_<][\w.<>]{0,60}(?::[\w<>.]{1,60}:\d{1,6})? - ",
    # Containers: swarm, compose, Kubernetes (CRI).
    rf"[\w.-]{{1,120}}@(?P<node>{_NAME}) {{1,40}}\| ?",
    r"(?P<node>[a-z0-9][\w.-]{0,62})(?:(?<=[-_.]\d)|(?<=[-_.]\d\d)| ) {1,40}\| ?",
    r"(?:stdout|stderr) [FP] ",
    r"[\w.-]{1,80}/\d{1,6} (?=\[)",  # torchx
    # Ansible, GNU parallel --tag, clush, pdsh. Then loggers, which look much alike.
    (
        rf"(?P<node>{_NAME}) \| (?:FAILED|UNREACHABLE|CHANGED|SUCCESS)!? (?:\| rc=\d{{1,3}} )?"
        r"(?:>> ?|=> )"
    ),
    r"(?:fatal|failed): \[(?P<node>[^\]\n]{1,80})\]: (?:FAILED|UNREACHABLE)! => ",
    rf"(?P<node>{_HOST})(?:\t|: (?!line \d))",
    # A launcher of one's own: node and rank.
    r"(?!step|epoch|iter|layer|round)(?P<node>[a-z][\w.-]{0,40}\d) r(?P<rank>\d{1,4}): ",
    rf"(?!{_NO_WORD}){_WORD}: (?={_ANOTHER_HEAD})",
    (
        r""
        r"(?!socket|struct|zlib|select|ssl|queue)(?:root|__main__|[a-z_]{1,40}(?:\.[a-z_]\w{0,40}){1,6})"
        rf"{_NO_HOST_END}: "
    ),
    r"(?:stderr|E)(?:: {0,3}| {3})",  # the latter is pytest's
)
OTHER = (
    r"<\d{1,3}>",
    r"> ",
    rf"[<|] ?(?P<level>{_LEVEL}) ?[>|][ :|-]{{0,12}}",
    rf"(?P<node>{_HOST})(?:\t|: )",  # ::1
)


_MILD = frozenset({"T", "D", "I", "W", "N", "S"})


class _Table:
    """Patterns as one expression: the group that closes last tells which of them matched."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        named = (p.replace("(?P<", f"(?P<p{n}_") for n, p in enumerate(patterns))
        self.match = re.compile("|".join(f"(?P<p{n}>{p})" for n, p in enumerate(named))).match
        self.fields = {
            f"p{n}": tuple((name, f"p{n}_{name}") for name in re.compile(pattern).groupindex)
            for n, pattern in enumerate(patterns)
        }


_OTHER = _Table(OTHER)
_BY_FIRST = {
    "[": _Table(BRACKETED),
    "(": _Table(PARENTHESISED),
    **dict.fromkeys("0123456789 ", _Table((*NUMBERED, *WORDED))),
    **dict.fromkeys(string.ascii_letters + "_", _Table(WORDED)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What the beginning of a line tells; ``text`` is the line without it.

    ``mild``: by its level (a warning or less) the program could go on.
    """

    text: str
    node: str = ""
    rank: int | None = None
    mild: bool = False


def read_head(line: str) -> Head:
    """The prefixes of ``line``, at most a handful of them. What comes first is believed."""
    told: dict[str, str] = {}
    start = 0
    for _ in range(MAX_PREFIXES):
        table = _BY_FIRST.get(line[start : start + 1], _OTHER)
        match = table.match(line, start)
        if match is None:
            break
        for name, group in table.fields[match.lastgroup or ""]:
            if (part := match[group]) is not None:
                told.setdefault(name, part)
        if match.end() == start:
            break
        start = match.end()
    rank = told.get("rank", told.get("local"))
    return Head(
        text=line[start:].lstrip(),
        node=told.get("node", ""),
        rank=None if rank is None else int(rank),
        mild=told.get("level", "E")[0].upper() in _MILD,
    )
