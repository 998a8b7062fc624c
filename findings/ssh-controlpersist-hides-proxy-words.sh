#!/bin/sh
# OpenSSH 9.2p1 (Debian 12, openssh-client 1:9.2p1-2+deb12u10) drops what a ProxyCommand or the ssh of
# a ProxyJump writes to standard error as soon as ControlPath and ControlPersist are both set: their
# stderr becomes /dev/null. The connection fails alike, with the reason gone: what is left is a broken
# pipe or a closed connection to "UNKNOWN port 65535". Whoever adds ControlPersist to speed logins up
# loses "Permission denied" of the jump host; -v brings it back.
#
# Seen on 2026-12-01, with a ProxyCommand that says "bastion: account expired" and exits with 1:
#     without ControlPersist:    its words are shown
#     with ControlPersist=10:    they are not
#     with ControlPersist=10 -v: they are
#
# Needs apt-get (download only) and dpkg-deb; nothing is contacted.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
apt-get download --quiet openssh-client=1:9.2p1-2+deb12u10 >apt.log 2>&1 || { cat apt.log >&2; exit 2; }
dpkg-deb --extract openssh-client_*.deb tree
ssh=$scratch/tree/usr/bin/ssh
"$ssh" -V

cat >config <<EOF
Host node
  HostName host.invalid
  BatchMode yes
  ControlMaster auto
  ControlPath $scratch/%C
  ProxyCommand sh -c 'echo bastion: account expired >&2; exit 1'
EOF
shown() {
    "$ssh" -F config "$@" node true 2>words && { echo 'it connected' >&2; exit 1; }
    if grep -q 'bastion: account expired' words; then echo shown; else echo hidden; fi
}
plain=$(shown)
kept=$(shown -o ControlPersist=10)
verbose=$(shown -v -o ControlPersist=10)
echo "without ControlPersist:    $plain"
echo "with ControlPersist=10:    $kept"
echo "with ControlPersist=10 -v: $verbose"
[ "$plain $kept $verbose" = 'shown hidden shown' ] || { echo 'this has changed' >&2; exit 1; }
