"""From the logs of many ranks to the first cause. Pure: rules as data, and a judge.

``model`` holds the data, ``rules`` what is known of failures, ``lines`` how log lines are read,
``matching`` finds what rules know in a line, ``observing`` what only many lines together tell,
``judge`` decides who is to blame.
"""
