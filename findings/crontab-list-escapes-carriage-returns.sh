#!/bin/sh
# `crontab -l` of Debian's cron 3.0pl1-162 prints a carriage return as the two characters \r, and
# nothing else that way: escape sequences, form feeds and bytes above 127 come as they are. So the
# usual `crontab -l | edit | crontab -` turns each carriage return into a backslash and an r: a
# crontab with lines that end in CR LF is another one afterwards, without a word.
#
# Seen on 2026-12-01: the crontab holds "echo a<CR>", the one written back "echo a\r".
#
# Needs root, util-linux and the package cron; the spool of the machine is not touched.
set -eu

[ -n "${SPOOL:-}" ] || {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    chgrp crontab "$scratch"
    chmod 1730 "$scratch"
    SPOOL=$scratch unshare --mount "$0"
    exit
}
mount --bind "$SPOOL" /var/spool/cron/crontabs
printf '5 4 * * * echo a\r\n' | crontab -
before=$(tail -n 1 "$SPOOL/$(id -un)" | od -An -c)
crontab -l | crontab -
after=$(tail -n 1 "$SPOOL/$(id -un)" | od -An -c)
echo "before:$before"
echo "after: $after"
[ "$before" != "$after" ]
case $after in *'\   r'*) ;; *) exit 1 ;; esac
