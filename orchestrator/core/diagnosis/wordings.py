"""Wordings that tell what a line is worth: quoted, survived, refused, empty."""

from __future__ import annotations

import re

# What a model was asked or answered, which programs write out: it happened to somebody else.
SPEECH = re.compile(
    r"\b(?i:prompt|question|answer|completion|instruction|user|assistant|human|sample|query|text"
    r"|caption|document|example|title|target|pred(?:iction|icted)?|expected|reference|response"
    r"|output|label)['\"]?"
    r" ?(?:[:=]|->) {0,2}\[?['\"\u201c]|^echo ['\"]"
)
# Words of a program that goes on, whatever it met.
SURVIVED = re.compile(
    r"(?i:\bretrying\b|\bwill (?:be )?retr|\[retry \d|\bfalling back\b|\bfalls back\b|\bskipping\b"
    r"|\bignoring\b|\bwill proceed\b|\bcontinuing with|\bresolved after\b|thrown while requesting"
    r"|\btrying (?:again|batch size|\d|\w{1,20}[= ]\d)|\busing .{1,40} instead\b"
    r"|\bcontinuing(?:$|[ .]without)|, continuing\b|\bstill trying$|\bskipped\b|\(ignored\b"
    r"|\bstarting from (?:scratch|step)|num_stages` may help"
    # Of a run before this one.
    r"|\bprevious (?:run|job|attempt)\b|\brestarting from\b)"
    r"|[,;] using |(?:^|\.py:\d{1,6}: )(?:[A-Z]\w{0,40})?Warning: "
)
# Words above a traceback that was caught, by whoever logged it.
CAUGHT = re.compile(
    r"(?i:\bcontinuing\b|\bskipp(?:ed|ing)\b|\bignor(?:ed|ing)\b|\bnon-?fatal\b|\bretrying\b"
    r"|\bswallow)"
)
# What Python's logging could not write; the program goes on, but what it met may matter. After a
# time of day the dashes before it are read as what separates the two.
UNLOGGED = "Logging error ---"
# A step of the training that is reported: whatever was written before did not end its writer.
STEP = re.compile(
    r"\{'(?:loss|train_loss)': [\d.]"
    r"|(?i:\b(?:step|iteration|iter|epoch)\b[^\n]{0,120}?loss\b[^\n]{0,4}\d)"
)
# A request that a server answered as it was meant to: it had got over what it wrote before.
SERVED = re.compile(r'"POST [^"\n]{1,200} HTTP/\d(?:\.\d)?" 200\b')
# What a server writes of a request that it refused: the mistake was the client's.
REFUSED = re.compile(r"\bHTTP/\d(?:\.\d)?\" 4(?:00|04|13|22)\b")
# A status of a library by its name, or words that only point at other lines.
SAYS_NOTHING = re.compile(
    r"^[A-Z][A-Z0-9]{1,20}(?:_[A-Z0-9]{1,20}){1,6}$"
    r"|(?i:\b(?:see|check|refer to|look at) (?:the )?"
    r"(?:stack trace|root cause|traceback|logs?|error|output).{0,30}"
    r"\b(?:above|below|for (?:root|more|details|the)))"
)
