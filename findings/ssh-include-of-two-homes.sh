#!/bin/sh
# OpenSSH 9.2p1 (Debian 12, openssh-client 1:9.2p1-2+deb12u10) reads one ssh_config with two ideas of
# home. Where $HOME is not the home directory of the password database (sudo -E, containers, batch
# systems, cron), a relative Include in a user's file is looked up below $HOME/.ssh: glob(3) expands
# its tilde. The default file ~/.ssh/config is looked up below the home of the password database,
# whatever $HOME is. So `ssh -F FILE` includes what `ssh` without -F would not even see.
#
# Seen on 2026-11-30:
#     -F FILE with "Include extra.conf", $HOME/.ssh/extra.conf says Port 2201:  port 2201
#     no -F, $HOME/.ssh/config says Port 2202:                                  port 22
#
# Needs root's apt-get (download only), dpkg-deb, and an account without Port in its own ~/.ssh/config.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
apt-get download --quiet openssh-client=1:9.2p1-2+deb12u10 >apt.log 2>&1 || { cat apt.log >&2; exit 2; }
dpkg-deb --extract openssh-client_*.deb tree
ssh=$scratch/tree/usr/bin/ssh
"$ssh" -V

mkdir -p home/.ssh
printf 'Include extra.conf\n' >file.conf
printf 'Port 2201\n' >home/.ssh/extra.conf
printf 'Port 2202\n' >home/.ssh/config
chmod -R go-w .

port() { HOME=$scratch/home "$ssh" -T "$@" -G host.invalid | sed -n 's/^port //p'; }
included=$(port -F "$scratch/file.conf")
default=$(port)
echo "-F FILE with a relative Include: port $included"
echo "no -F, the same HOME:            port $default"
[ "$included $default" = '2201 22' ] || { echo 'this has changed' >&2; exit 1; }
