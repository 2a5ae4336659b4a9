#!/bin/sh
# A Chromium for the browser tests: the one on the PATH, else Debian's package. Says what to do where it cannot.
set -eu
command -v chromium >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; }
    exit 0
fi
echo "The browser tests need Chromium: install your system's package (chromium), then run them again." >&2
exit 1
