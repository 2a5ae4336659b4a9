#!/usr/bin/env bash
# The programs that read what is deployed as the real ones do, into a cache folder; prints the folder that belongs on PATH.
#   helm       built from its Go module (needs Go); takes minutes the first time
#   promtool   the one of this machine, else out of Debian's package of Prometheus
#   haproxy    the same
#   asyncapi-3.0.0.json   AsyncAPI's own schema, out of its npm package (needs npm)
# Nothing is installed on the machine. The cache is NEUTROFLAG_CACHE, else ~/.cache/neutroflag.
set -euo pipefail
helm_version=v3.18.4
specs=6.11.1
specs_sum=0375812ea00a1a8276fba15616da63065090d6814272ce06c45ef3b081af36aa7f9251941e3940dda01c67d5cc3292c613cccf7980f3db1f4598ee834ae2ab69
bin=${NEUTROFLAG_CACHE:-$HOME/.cache/neutroflag}/deploy-tools-$helm_version
mkdir -p "$bin"

build_helm() {
  [ -x "$bin/helm" ] && return
  command -v go >/dev/null || { echo "tools: helm needs Go on PATH" >&2; exit 3; }
  GOBIN="$bin" go install -trimpath "helm.sh/helm/v3/cmd/helm@$helm_version" >&2
}

# unpacked NAME PROGRAM PACKAGES...: a wrapper in the cache that finds the libraries beside the program.
unpacked() {
  local name=$1 program=$2 folder="$bin/$1.files"
  shift 2
  [ -x "$bin/$name" ] && return
  if found=$(command -v "$name"); then ln -s "$found" "$bin/$name"; return; fi
  command -v apt-get >/dev/null || { echo "tools: no $name on PATH, and no apt-get to fetch it" >&2; exit 3; }
  mkdir -p "$folder"
  (cd "$folder" && { apt-get download "$@" || { apt-get update && apt-get download "$@"; }; } && for one in *.deb; do dpkg-deb -x "$one" .; done) >&2
  printf '#!/bin/sh\nLD_LIBRARY_PATH="$(echo %s/usr/lib/*-linux-gnu)" exec %s "$@"\n' "$folder" "$folder/$program" >"$bin/$name"
  chmod +x "$bin/$name"
}

schema() {
  [ -e "$bin/asyncapi-3.0.0.json" ] && return
  command -v npm >/dev/null || { echo "tools: AsyncAPI's schema needs npm on PATH" >&2; exit 3; }
  local folder
  folder=$(mktemp -d)
  (cd "$folder" && npm pack --silent "@asyncapi/specs@$specs" && echo "$specs_sum  asyncapi-specs-$specs.tgz" | sha512sum -c --quiet && tar xzf ./*.tgz) >&2
  mv "$folder/package/schemas/3.0.0.json" "$bin/asyncapi-3.0.0.json"
  rm -rf "$folder"
}

schema
unpacked promtool usr/bin/promtool prometheus
unpacked haproxy usr/sbin/haproxy haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1
build_helm
echo "$bin"
