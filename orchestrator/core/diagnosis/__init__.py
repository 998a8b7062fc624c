"""The first cause in logs: from lines to clues to one verdict. Pure.

``cleaning`` takes control sequences and JSON away, ``line_prefixes`` and ``line_times`` read who
wrote a line and when, ``tracebacks`` which exception began a chain; ``signs`` and ``matching`` find
what ``rules`` know, and ``first_cause`` judges.
"""
