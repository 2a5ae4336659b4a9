#!/usr/bin/env bash
# One Apache Kafka node in KRaft mode on loopback, for tests and trials: broker and controller in one process, no ZooKeeper.
#   kafka.sh install              jars by Maven coordinates into the cache (needs Java 17 and Maven)
#   kafka.sh start DIR [PORT]     data, settings and log in DIR; prints host:port once the broker answers
#                                 with DIR/tls/server.pem (key, chain) also a SASL_SSL listener, user lab, password in DIR/tls/password
#   kafka.sh stop DIR             ends it by its process id
#   kafka.sh kill DIR             ends it at once, as a fault would
# The cache is NEUTROFLAG_CACHE, else ~/.cache/neutroflag.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n '/kafka_2.13/{n;s/.*<version>\(.*\)<.*/\1/p}' "$here/pom.xml")
jars=${NEUTROFLAG_CACHE:-$HOME/.cache/neutroflag}/kafka-$version

install() {
  [ -e "$jars/.whole" ] && return
  command -v mvn java >/dev/null || { echo "kafka: needs java (17) and mvn on PATH" >&2; exit 3; }
  mkdir -p "$jars"
  mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$jars" >&2
  touch "$jars/.whole"
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

java_main() { java -cp "$jars/*" "$@"; }

# Who comes by the plain listener may do everything, lab what no ACL forbids. The last of two lines with one key is the one that counts.
secured() {
  local dir=$1 tls
  tls=$(free_port)
  echo "$tls" >"$dir/tls/port"
  cat <<SETTINGS
listeners=PLAINTEXT://127.0.0.1:$2,SASL_SSL://127.0.0.1:$tls,CONTROLLER://127.0.0.1:$3
advertised.listeners=PLAINTEXT://127.0.0.1:$2,SASL_SSL://127.0.0.1:$tls
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location=$dir/tls/server.pem
sasl.enabled.mechanisms=PLAIN
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=true
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_lab="$(cat "$dir/tls/password")";
SETTINGS
}

start() {
  local dir=$1 port=${2:-} controller
  install
  mkdir -p "$dir"
  if [ ! -e "$dir/server.properties" ]; then
    port=${port:-$(free_port)}
    controller=$(free_port)
    cat >"$dir/server.properties" <<SETTINGS
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
log.dirs=$dir/data
num.partitions=4
auto.create.topics.enable=false
offsets.topic.num.partitions=4
auto.create.topics.enable=false
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
SETTINGS
    [ -e "$dir/tls/server.pem" ] && secured "$dir" "$port" "$controller" >>"$dir/server.properties"
    java_main kafka.tools.StorageTool format -t "$(java_main kafka.tools.StorageTool random-uuid)" \
      -c "$dir/server.properties" >"$dir/format.log" 2>&1 || { cat "$dir/format.log" >&2; exit 1; }
  fi
  port=$(sed -n 's#^advertised.listeners=PLAINTEXT://127.0.0.1:\([0-9]*\).*#\1#p' "$dir/server.properties" | tail -1)
  nohup java -Xms256m -Xmx512m -XX:TieredStopAtLevel=1 -cp "$jars/*" kafka.Kafka "$dir/server.properties" >>"$dir/kafka.log" 2>&1 </dev/null &
  echo $! >"$dir/kafka.pid"
  for _ in $(seq 1 300); do
    grep -q "Kafka Server started" "$dir/kafka.log" && python3 -c "import socket; socket.create_connection(('127.0.0.1', $port), 1)" 2>/dev/null && { echo "127.0.0.1:$port"; return; }
    kill -0 "$(cat "$dir/kafka.pid")" 2>/dev/null || { tail -20 "$dir/kafka.log" >&2; exit 1; }
    sleep 0.2
  done
  echo "kafka: not up within a minute" >&2
  exit 1
}

end() {
  local dir=$1 signal=$2 pid
  pid=$(cat "$dir/kafka.pid" 2>/dev/null) || return 0
  kill "-$signal" "$pid" 2>/dev/null || true
  for _ in $(seq 1 150); do kill -0 "$pid" 2>/dev/null || break; sleep 0.2; done
  kill -KILL "$pid" 2>/dev/null || true
  rm -f "$dir/kafka.pid"
  # What the next start waits for must be its own words.
  mv -f "$dir/kafka.log" "$dir/kafka.$(date +%s%N).log"
}

case ${1:-} in
  install) install; echo "$jars" ;;
  start) start "${2:?a folder}" "${3:-}" ;;
  stop) end "${2:?a folder}" TERM ;;
  kill) end "${2:?a folder}" KILL ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
