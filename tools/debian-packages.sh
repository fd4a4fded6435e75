#!/bin/sh
# See to it that Debian packages are there: as root install the missing ones, otherwise say in one line what is missing.
# Without dpkg (another distribution) only the commands that the packages bring are looked for. Usage: debian-packages.sh PACKAGE…
set -eu

command_of() {
    case $1 in
    wireguard-tools) echo wg ;;
    nftables) echo nft ;;
    iproute2) echo ip ;;
    iputils-ping) echo ping ;;
    procps) echo sysctl ;;
    bind9-dnsutils) echo dig ;;
    coturn) echo turnserver ;;
    miniupnpc) echo upnpc ;;
    miniupnpd-nftables) echo miniupnpd ;;
    dnsmasq-base) echo dnsmasq ;;
    postgresql) echo initdb ;;
    proftpd-core) echo proftpd ;;
    systemd) echo systemctl ;;
    tftp-hpa) echo tftp ;;
    tftpd-hpa) echo in.tftpd ;;
    nginx-light) echo nginx ;;
    wireguard-go | fish | tayga | natpmpc | squid | faketime | nebula | iperf3 | gcc | tcpdump | caddy | curl | lftp | pebble | pure-ftpd | slowhttptest | socat | vsftpd | zsh) echo "$1" ;;
    *) echo true ;; # headers and libraries: whoever needs them says so
    esac
}

missing=
if [ -x /usr/bin/dpkg-query ]; then
    installed=$(dpkg-query --show --showformat '${db:Status-Abbrev}${Package}\n' "$@" 2>/dev/null | sed -n 's/^ii *//p') || true
    for package in "$@"; do
        printf '%s\n' "$installed" | grep -qx -- "$package" || missing="$missing $package"
    done
else
    for package in "$@"; do
        command -v "$(command_of "$package")" >/dev/null || missing="$missing $package"
    done
fi
[ "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || [ ! -x /usr/bin/apt-get ] || [ "${APT:-yes}" = no ]; then
    echo "not installed, so what needs them is skipped (as root they would be installed now):$missing"
    exit 0
fi

echo "installing Debian packages:$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
# The programs are wanted, not services that run on this machine from now on.
for unit in caddy coturn miniupnpd nginx proftpd pure-ftpd squid tftpd-hpa vsftpd; do
    case " $missing " in
    *" $unit"[\ -]*) [ -e "/etc/systemd/system/$unit.service" ] || { mkdir -p /etc/systemd/system && ln -s /dev/null "/etc/systemd/system/$unit.service"; } ;;
    esac
done
case " $missing " in
*" postgresql "*)
    conf=/etc/postgresql-common/createcluster.d/warren-tests.conf
    [ -e /etc/postgresql ] || { mkdir -p "${conf%/*}" && echo 'create_main_cluster = false' >"$conf"; }
    ;;
esac
# shellcheck disable=SC2086 # a list of words
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    echo "error: apt-get could not install$missing (its last lines are above); APT=no goes on without them" >&2
    exit 1
fi
