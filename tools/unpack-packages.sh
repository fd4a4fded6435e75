#!/bin/sh
# Unpack Debian packages into DIRECTORY/PACKAGE without installing them, for programs whose packages exclude each other
# or would start services; with the libraries that this machine does not have. No root is needed. What is unpacked
# already is left alone; what cannot be had is named in one line. Usage: unpack-packages.sh DIRECTORY PACKAGE…
set -eu
directory=$1
shift

missing=
for package in "$@"; do
    [ -d "$directory/$package" ] || missing="$missing $package"
done
[ "$missing" ] || exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

download() {
    (cd "$work" && apt-get download -q -o APT::Sandbox::User=root -o Acquire::http::Timeout=20 "$1") >>"$work/log" 2>&1 </dev/null
}

installed() {
    [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# The libraries that a package asks for, without versions and alternatives.
libraries() {
    dpkg-deb --field "$1" Pre-Depends Depends | sed 's/^[A-Za-z-]*: //' | tr ',' '\n' | sed 's/^ *//; s/[ :|(].*//' | grep '^lib' || true
}

unpack() { # PACKAGE DIRECTORY
    download "$1" || return 1
    set -- "$1" "$2" "$(echo "$work/$1"_*.deb)"
    dpkg-deb --extract "$3" "$2" || return 1
    touch "$work/done.$1"
    for library in $(libraries "$3"); do
        [ -e "$work/done.$library" ] || installed "$library" || unpack "$library" "$2" || return 1
    done
}

if [ ! -x /usr/bin/apt-get ] || [ "${APT:-yes}" = no ]; then
    echo "not unpacked, so what needs them is skipped:$missing"
    exit 0
fi

mkdir -p "$directory"
failed=
for package in $missing; do
    rm -f "$work"/done.* "$work"/*.deb
    mkdir "$work/$package"
    if ! unpack "$package" "$work/$package"; then
        # Lists of packages that are old or not there at all; only root can fetch them.
        rm -f "$work"/done.* "$work"/*.deb
        if [ "$(id -u)" != 0 ] || ! apt-get update -q >>"$work/log" 2>&1 </dev/null || ! unpack "$package" "$work/$package"; then
            failed="$failed $package"
            continue
        fi
    fi
    mv "$work/$package" "$directory/$package"
done
[ -z "$failed" ] || echo "not unpacked, so what needs them is skipped (apt-get download: $(tail -n 1 "$work/log")):$failed"
