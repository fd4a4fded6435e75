#!/bin/sh
# Make requirements/*.txt anew from pyproject.toml and requirements/*.in: exact versions, with hashes, for every Python from 3.11.
# `UPGRADE=1` takes the newest versions; without it pinned ones stay. Usage: tools/lock.sh VENV
set -eu
uv=$1/bin/uv
upgrade=${UPGRADE:+--upgrade}

lock() {
    name=$1
    shift
    # shellcheck disable=SC2086 # $upgrade is one word or none
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes $upgrade \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file "requirements/$name.txt" "$@"
    echo "requirements/$name.txt: $(grep -c '==' "requirements/$name.txt") packages"
}

lock runtime pyproject.toml --extra coordinator
lock build requirements/build.in --constraints requirements/runtime.txt
lock dev requirements/dev.in --constraints requirements/runtime.txt --constraints requirements/build.txt
lock fuzz requirements/fuzz.in
