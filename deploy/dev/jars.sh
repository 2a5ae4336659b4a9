# Sourced with the name of a folder beside this file: sets CLASSES to a class path with the libraries of its pom.xml and its compiled
# sources. Maven and javac run once a change; what they give is kept outside of the repository.
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/$1
state=$(cat "$here/pom.xml" "$here"/*.java | sha256sum | cut -c1-16)
cache=${NEUTROFLAG_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/neutroflag}/$1-$state

if [ ! -e "$cache/ready" ]; then
  for tool in mvn javac; do
    command -v "$tool" > /dev/null || { echo "$tool is needed: apt-get install maven default-jdk-headless" >&2; exit 3; }
  done
  mkdir -p "$cache"
  if ! mvn -q -B -f "$here/pom.xml" dependency:build-classpath -Dmdep.outputFile="$cache/libraries" > "$cache/maven.log" 2>&1; then
    echo "Maven could not resolve the libraries; see $cache/maven.log" >&2
    exit 3
  fi
  javac -nowarn -Xlint:-deprecation -proc:none -cp "$(cat "$cache/libraries")" -d "$cache/classes" "$here"/*.java >&2 || exit 3
  touch "$cache/ready"
fi
CLASSES=$cache/classes:$(cat "$cache/libraries")
