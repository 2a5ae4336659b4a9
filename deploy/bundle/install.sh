#!/bin/sh
# Installs NeutroFlag from this folder alone: no index, no network. Run it again to upgrade.
#   ./install.sh [PREFIX]      PREFIX: the folder of the program, /opt/neutroflag unless given
# As root it also makes the user "neutroflag", puts the system services in place and a first settings file in
# /etc/neutroflag; it starts and restarts nothing. With PREFIX under your own home nothing else is touched.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
prefix=${1:-/opt/neutroflag}
python=${PYTHON:-python3}
wanted=$(cat "$here/PYTHON")

say() { echo "install.sh: $*" >&2; }

# Every file as it was packed: a wheel that was cut short on its way must not half work.
(cd "$here" && sha256sum --check --quiet --strict SHA256SUMS) || { say "the bundle is damaged; nothing was installed"; exit 1; }

command -v "$python" >/dev/null || { say "no $python; set PYTHON=/path/to/python$wanted"; exit 1; }
found=$("$python" -c 'import sys, sysconfig; print("%d.%d" % sys.version_info[:2], sysconfig.get_platform())')
if [ "$found" != "$wanted" ]; then
    say "this bundle is for Python $wanted, $python is $found; set PYTHON= or make a bundle on a machine like this one"
    exit 1
fi

"$python" -m venv "$prefix" || { say "cannot make $prefix (Debian: apt install python3-venv)"; exit 1; }
pip="$prefix/bin/python -m pip --disable-pip-version-check --quiet"
$pip install --no-index --find-links "$here/wheels" --only-binary :all: --require-hashes -r "$here/requirements.lock"
# --force-reinstall: the same version number may stand for a newer build.
$pip install --no-index --no-deps --force-reinstall "$here"/neutroflag-*.whl
mkdir -p "$prefix/share"
cp -R "$here/docs" "$here/deploy" "$prefix/share/"
"$prefix/bin/neutroflag" rules check >/dev/null

if [ "$(id -u)" = 0 ] && [ "$prefix" = /opt/neutroflag ]; then
    getent passwd neutroflag >/dev/null ||
        useradd --system --user-group --home-dir /var/lib/neutroflag --shell /usr/sbin/nologin neutroflag
    install -d -m 0750 -o root -g neutroflag /etc/neutroflag
    if [ ! -e /etc/neutroflag/neutroflag.toml ]; then
        install -m 0640 -o root -g neutroflag "$here/deploy/neutroflag.system.toml" /etc/neutroflag/neutroflag.toml
        say "first settings in /etc/neutroflag/neutroflag.toml: observe mode, loopback"
    fi
    if [ -d /etc/systemd/system ]; then
        install -m 0644 "$here"/deploy/neutroflag*.service "$here"/deploy/neutroflag*.timer /etc/systemd/system/
        say "then: systemctl daemon-reload && systemctl enable --now neutroflag neutroflag-backup.timer"
    fi
fi
say "installed $("$prefix/bin/neutroflag" version) in $prefix; $prefix/share/docs/runbook.md tells how to run it"
