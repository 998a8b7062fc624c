"""Change points over nights: one scan per series, one error budget for all series of a night.

``split_scan`` finds the best split of a series, ``maximum_null`` says how often chance alone finds
one as good, ``night_verdict`` judges all series of a night together.
"""
