#!/bin/sh
# Installs the OpenID provider of the browser tests beside this file, from the npm registry, as locked. Says what is missing.
set -eu
cd "$(dirname "$0")"
command -v npm >/dev/null || { echo "The log-in's browser test needs Node.js 18 or newer with npm." >&2; exit 1; }
stamp=node_modules/.installed
[ -f "$stamp" ] && cmp -s package-lock.json "$stamp" && exit 0
npm ci --silent --no-audit --no-fund --ignore-scripts
cp package-lock.json "$stamp"
