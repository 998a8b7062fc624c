"""Logs as the programs meant them: without what steers terminals, and out of their JSON wrapping.

Lines keep their numbers: what one line unfolds to is divided by carriage returns, which begin no
line of a file.
"""

from __future__ import annotations

import json
import re

from orchestrator.core.diagnosis.line_prefixes import read_head

MAX_SEQUENCE = 200  # characters of one sequence, so that an unfinished one takes nothing away
MAX_LEVEL = 8
MAX_WRAPPINGS = 3  # a collector's record of an engine's record of a program's
MAX_WRAPPED = 64 << 10  # a longer line of JSON is read as it stands

_SEQUENCES = re.compile(
    r"\x1b\[[0-?]{0,60}[ -/]{0,8}[@-~]"  # CSI: colours, cursor
    rf"|\x1b\][^\x07\x1b\n]{{0,{MAX_SEQUENCE}}}(?:\x07|\x1b\\)"  # OSC: titles, links
    rf"|\x1b[PX^_][^\x1b\n]{{0,{MAX_SEQUENCE}}}\x1b\\"  # DCS, SOS, PM, APC
    r"|\x1b[ -/]{0,8}[0-~]?"  # the other escapes, also unfinished ones
    r"|\x9b[0-?]{0,60}[ -/]{0,8}[@-~]"  # CSI as a single character
    r"|(?:\^\[|ESC|#033|\\x1b|\\u001b|\\e|\\033)\[[0-9;]{0,20}[mK]"  # as pagers and syslog write it
)
_ESCAPED = ("\x1b", "\x9b", "^[[", "ESC[", "#033[", "\\x1b[", "\\u001b[", "\\e[", "\\033[")
_INVISIBLE = re.compile("[\x00\u200b\u2060\ufeff]")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d")
_HOST = re.compile(r"[A-Za-z0-9][\w.-]{0,62}")
# What container engines, collectors and structured loggers call the parts of a line.
_TEXT_KEYS = ("log", "message", "msg", "MESSAGE", "event", "text", "body")
_MORE_KEYS = ("exc_info", "exception", "stack_trace", "traceback", "stack")
_LEVEL_KEYS = ("level", "severity", "levelname", "lvl")
_TIME_KEYS = ("time", "timestamp", "ts", "asctime", "@timestamp")
_HOST_KEYS = ("_HOSTNAME", "hostname", "host")


def clean_log_text(text: str) -> str:
    """``text`` with as many lines, without control sequences; lines of JSON as their messages."""
    if any(mark in text for mark in _ESCAPED):
        text = _SEQUENCES.sub("", text)
    if not text.isascii() or "\x00" in text:
        text = _INVISIBLE.sub("", text)
    if '{"' not in text:
        return text
    return "\n".join(_unfold_json(line) for line in text.split("\n"))


def _unfold_json(line: str) -> str:
    """The message of a line of JSON, and a traceback that it carries; another line as it is."""
    for _ in range(MAX_WRAPPINGS):
        begin = line.find('{"')
        if begin < 0 or len(line) > MAX_WRAPPED or not line.rstrip().endswith("}"):
            return line
        if read_head(line[: begin + 1]).text != "{":
            return line  # what stands before is no prefix, but a program's words
        message = _record_message(line[begin:])
        if message is None:
            return line
        line = line[:begin] + message
    return line


def _record_message(text: str) -> str | None:
    """What the record says, as lines divided by carriage returns; None if it is none."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    message = _first_value(record, _TEXT_KEYS)
    if not message:
        return None
    more = _first_value(record, _MORE_KEYS)
    lines = _SEQUENCES.sub("", message if more in message else f"{message}\n{more}").splitlines()
    return "\r".join([_record_head(record) + lines[0], *lines[1:]]) if lines else None


def _record_head(record: dict[str, object]) -> str:
    """Time, host and level as a line of syslog would tell them."""
    time, host = _first_value(record, _TIME_KEYS), _first_value(record, _HOST_KEYS)
    level = _first_value(record, _LEVEL_KEYS).upper()
    parts = (
        f"{time} " if _TIME.match(time) else "",
        f"{host} json[0]: " if _HOST.fullmatch(host) else "",
        f"{level}: " if level.isalpha() and len(level) <= MAX_LEVEL else "",
    )
    return "".join(parts)


def _first_value(record: dict[str, object], keys: tuple[str, ...]) -> str:
    values = (record.get(key) for key in keys)
    return next((value for value in values if isinstance(value, str) and value), "")
