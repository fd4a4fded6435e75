#!/bin/sh
# Make the virtual environment and install into it. Silent when there is nothing to do, one line a step otherwise;
# what a step printed is shown only when it failed.
# Usage: install.sh VENV venv
#        install.sh VENV locked NAME…   requirements/NAME.txt
#        install.sh VENV project
set -eu
here=$(dirname "$0")
venv=$1
step=$2
shift 2
python=$venv/bin/python
log=$(mktemp)
trap 'rm -f "$log"' EXIT

quietly() {
    "$@" >"$log" 2>&1 </dev/null || {
        tail -n 20 "$log" >&2
        echo "error: failed: $*" >&2
        exit 1
    }
}

pip() {
    quietly "$python" -m pip --disable-pip-version-check --no-input install --quiet "$@"
}

case $step in
venv)
    "$python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && exit
    base=$("$here/find-python.sh")
    echo "making $venv with $("$base" --version)"
    quietly "$base" -m venv --clear "$venv"
    ;;
locked)
    echo "installing locked Python packages: $*"
    for name; do
        shift
        set -- "$@" --requirement "requirements/$name.txt"
    done
    pip --require-hashes "$@"
    ;;
project)
    echo "building Warren"
    WARREN_BUILD_PURE=1 pip --no-build-isolation --no-deps --no-index --editable .
    quietly "$python" hatch_build.py
    if ! env --unset=WARREN_PURE "$python" -c 'import sys; from warren.proto import datapath; sys.exit(not datapath.COMPILED)' 2>/dev/null; then
        tail -n 1 "$log"
        echo "the pure Python variant is used; the compiled one needs a C compiler and the headers of Python and OpenSSL (then: rm -r .stamps)"
    fi
    ;;
esac
