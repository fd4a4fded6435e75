#!/bin/sh
# Run pytest with the right to make network namespaces: root has it, others get it inside a user namespace of their own.
# Where neither is possible the tests that need it are skipped, and one line says why. Usage: run-tests.sh PYTHON [ARGUMENT…]
set -eu
python=$1
shift
# Inside a user namespace everybody is root: pytest must not take root's temporary directory for its own.
[ "$(id -u)" = 0 ] || export LOGNAME="uid-$(id -u)"
if why=$("$python" -m warren.lab.privilege true 2>&1); then
    exec "$python" -m warren.lab.privilege "$python" -m pytest "$@"
fi
echo "skipped: tests in network namespaces: $why"
exec "$python" -m pytest "$@"
