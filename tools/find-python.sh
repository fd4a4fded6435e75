#!/bin/sh
# Print the path of a Python that is new enough and can make virtual environments; PYTHON names one to be taken.
# Fails with one line that says what to do.
set -eu

suits() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# The distribution's comes first: it is built with profile-guided optimisation, which one compiled by pyenv and the like
# often is not, and runs the data path a third faster.
for name in ${PYTHON:-/usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11}; do
    path=$(command -v "$name") || continue
    suits "$path" || continue
    "$path" -c 'import ensurepip, venv' 2>/dev/null || { bare=$path; continue; }
    echo "$path"
    exit
done

if [ "${bare:-}" ]; then
    if [ "$(id -u)" = 0 ] && [ -x /usr/bin/apt-get ] && [ "$("$bare" -c 'import sys; print(sys.base_prefix)')" = /usr ]; then
        "$(dirname "$0")/debian-packages.sh" python3-venv >&2
        echo "$bare"
        exit
    fi
    echo "error: $bare lacks the venv module; on Debian: apt-get install python3-venv" >&2
else
    echo "error: no Python ≥ 3.11 found (looked for ${PYTHON:-python3, python3.14 … python3.11}); install one, or say make PYTHON=/path/to/python" >&2
fi
exit 1
