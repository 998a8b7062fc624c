# Sourced by the programs beside it, with $root set: finds the virtual environment that was built
# from requirements/NAME.lock, and has bootstrap.py build it if there is none.

# Sets $environment; leaves with status 2 and a reason when that is impossible.
use_environment() {
    find_environment "$1" && return
    find_python
    environment=$("$python" -I "$root/scripts/bootstrap.py" "$root" "$1") || exit $?
}

# The everyday path: no Python starts here. An environment's `ready` file is a copy of the lock that
# it was built from, written last. Home directories are shared, so the machine is in its name.
find_environment() {
    # Whether a ready one belongs to an interpreter that was asked for, only that interpreter can tell.
    [ -z "${ORCHESTRATE_PYTHON:-}" ] || return 1
    for environment in "$root/.venv/$1-$(uname -m)-"*; do
        if [ -x "$environment/bin/python" ] &&
            cmp -s "$root/requirements/$1.lock" "$environment/ready" 2>/dev/null; then
            return
        fi
    done
    return 1
}

# Sets $python to an interpreter that is new enough.
find_python() {
    seen=
    if [ -n "${ORCHESTRATE_PYTHON:-}" ]; then
        try_python "$ORCHESTRATE_PYTHON" && return
    else
        for name in python3.13 python3.12 python3.11 python3; do
            try_python "$name" && return
        done
    fi
    cat >&2 <<MESSAGE
orchestrate: Python 3.11 or newer is needed; found ${seen:-none}.
  Debian, Ubuntu:  apt install python3 python3-venv   (from Debian 12 and Ubuntu 24.04 on)
  macOS:           brew install python@3.13
  Elsewhere:       name an interpreter with ORCHESTRATE_PYTHON=/path/to/python3.11
MESSAGE
    exit 2
}

try_python() {
    python=$(command -v "$1") || return
    version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || return
    seen="${seen:+$seen, }$python $version"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'
}
