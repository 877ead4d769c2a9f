#!/usr/bin/env bash
# A real Apache Pulsar broker for tests, on this machine and for this machine only. Never for production.
#
#   pulsar.sh fetch    downloads the distribution into the cache, once; needs Java and Maven
#   pulsar.sh home     prints where it is; fails when it is not there
#   pulsar.sh serve    runs a broker until its standard input ends, so that it dies with whoever holds the other end,
#                      however that one dies. It prints `ready SERVICE_URL TLS_URL ADMIN_URL CA_FILE` when it can be used.
#                      Meanwhile it takes commands, a line each, and answers each with a line:
#                      `stop` (kill -9) -> `stopped`, `start` -> `ready ...`, `pause` -> `paused`, `resume` -> `resumed`
set -euo pipefail

version=4.0.8
sha512=65b769b10696cdfebf7fc5bcdc95dd663702e27051e616c1a13cb100e91279525be35352171befe7b0011176330aab29bd0a6c8a0f2f0646641af46d2e33cbd6
artifact=org.apache.pulsar:pulsar-server-distribution:$version:tar.gz:bin
plugin=org.apache.maven.plugins:maven-dependency-plugin:3.6.1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/smartpulse
home=$cache/apache-pulsar-$version

# A start takes 10 to 30 seconds; beside several builds it was seen to take two minutes.
patience_seconds=400

fetch() {
    [ -d "$home" ] && return
    command -v java >/dev/null || { echo "no java: install a JRE, 17 or later" >&2; return 1; }
    command -v mvn >/dev/null || { echo "no mvn: install Maven" >&2; return 1; }
    mkdir -p "$cache"
    exec 9>"$cache/pulsar.lock"
    flock 9
    [ -d "$home" ] && return
    local folder; folder=$(mktemp -d "$cache/pulsar.XXXXXX")
    # Into a repository of its own, so that the archive is not kept twice.
    if mvn -B -ntp -q -C -Dmaven.repo.local="$folder/repository" "$plugin:copy" -Dartifact="$artifact" -DoutputDirectory="$folder" &&
        echo "$sha512  $folder/pulsar-server-distribution-$version-bin.tar.gz" | sha512sum --check --quiet &&
        tar -xzf "$folder/pulsar-server-distribution-$version-bin.tar.gz" -C "$folder"; then
        mv "$folder/apache-pulsar-$version" "$home"
        rm -rf "$folder"
    else
        rm -rf "$folder"
        echo "Apache Pulsar $version could not be fetched" >&2
        return 1
    fi
}

free_port() {
    local port
    for _ in $(seq 100); do
        port=$((20000 + RANDOM % 12000))
        (exec 8<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    return 1
}

# The token of `admin`, and of nobody in particular, are in src/pulsar.rs. The only bookie must not be given up: neither because
# a disk that others fill too has 5 % left, nor, for half an hour, because it did not answer while a test had stopped it.
configure() {
    # The bookie speaks within the process: it would listen on every address.
    cat >"$folder/ours.conf" <<CONF
brokerServicePort=$port
brokerServicePortTls=$tls_port
webServicePort=$web_port
bindAddress=127.0.0.1
advertisedAddress=127.0.0.1
enableLocalTransport=true
disableServerSocketBind=true
webSocketServiceEnabled=false
tlsEnabledWithKeyStore=true
tlsKeyStoreType=PKCS12
tlsKeyStore=$folder/key.p12
tlsKeyStorePassword=changeit
authenticationEnabled=true
authenticationProviders=org.apache.pulsar.broker.authentication.AuthenticationProviderToken
tokenSecretKey=data:;base64,c21hcnRwdWxzZS10ZXN0cy1vbmx5LTAxMjM0NTY3ODk=
authorizationEnabled=true
anonymousUserRole=anonymous
superUserRoles=anonymous,admin
brokerDeleteInactiveTopicsEnabled=false
topicLevelPoliciesEnabled=false
systemTopicEnabled=false
activeConsumerFailoverDelayTimeMillis=0
dbStorage_writeCacheMaxSizeMb=64
dbStorage_readAheadCacheMaxSizeMb=32
managedLedgerCacheSizeMB=64
diskUsageThreshold=0.999
diskUsageWarnThreshold=0.998
bookkeeperClientHealthCheckEnabled=false
numIOThreads=2
numHttpServerThreads=8
numExecutorThreadPoolSize=2
numCacheExecutorThreadPoolSize=2
numOrderedExecutorThreads=2
topicOrderedExecutorThreadNum=2
CONF
    # Of a key that stands twice the broker takes the last, and the bookie the first. What is shipped ends without a line break.
    grep -v -F -f <(sed 's/=.*/=/' "$folder/ours.conf") "$home/conf/standalone.conf" >"$folder/standalone.conf"
    { echo; cat "$folder/ours.conf"; } >>"$folder/standalone.conf"
    keytool -genkeypair -alias broker -keyalg EC -groupname secp256r1 -dname CN=localhost -ext san=ip:127.0.0.1,dns:localhost \
        -validity 3650 -storetype PKCS12 -keystore "$folder/key.p12" -storepass changeit 2>/dev/null
    keytool -exportcert -rfc -alias broker -keystore "$folder/key.p12" -storepass changeit -file "$folder/ca.pem" 2>/dev/null
}

start() {
    # A JIT that optimises costs more than it saves here. With `setpriv` the broker dies with this script even by kill -9.
    local guard=(); command -v setpriv >/dev/null && guard=(setpriv --pdeathsig KILL)
    PULSAR_STANDALONE_CONF=$folder/standalone.conf PULSAR_LOG_DIR=$folder/logs PULSAR_LOG_LEVEL=warn \
        PULSAR_MEM="-Xms256m -Xmx768m -XX:MaxDirectMemorySize=768m" PULSAR_GC="-XX:+UseSerialGC -XX:TieredStopAtLevel=1" \
        PULSAR_GC_LOG=-Xlog:disable \
        "${guard[@]}" bash "$home/bin/pulsar" standalone -nfw -nss -a 127.0.0.1 --bookkeeper-dir "$folder/bookie" \
        --metadata-dir "$folder/metadata" </dev/null >>"$folder/log" 2>&1 &
    broker=$!
    local heard admin=http://127.0.0.1:$web_port/admin/v2
    for _ in $(seq $((patience_seconds * 5))); do
        # Ready is who can write: its bookie may come after its admin interface.
        if curl -sf -m 5 -o /dev/null "$admin/namespaces/public/default" &&
            curl -sf -m 10 -o /dev/null -X PUT "$admin/persistent/public/default/ready-$RANDOM$RANDOM/subscription/ready"; then
            echo "ready pulsar://127.0.0.1:$port pulsar+ssl://127.0.0.1:$tls_port http://127.0.0.1:$web_port $folder/ca.pem"
            return
        fi
        kill -0 "$broker" 2>/dev/null || break
        # The pause between two looks, which ends when whoever wanted the broker is gone.
        heard=0; read -r -t 0.2 || heard=$?
        [ "$heard" -ne 1 ] || exit 1
    done
    tail -n 40 "$folder/log" >&2
    echo "failed: the broker did not start"
    return 1
}

stop() {
    [ -z "$broker" ] && return
    kill -9 "$broker" 2>/dev/null || true
    wait "$broker" 2>/dev/null || true
    broker=
}

serve() {
    home >/dev/null
    folder=$(mktemp -d) broker=
    trap 'stop; rm -rf "$folder"' EXIT
    trap 'exit 1' TERM INT HUP
    port=$(free_port) tls_port=$(free_port) web_port=$(free_port)
    configure
    start
    while read -r command; do
        case $command in
        stop) stop; echo stopped ;;
        start) start ;;
        pause) kill -STOP "$broker"; echo paused ;;
        resume) kill -CONT "$broker"; echo resumed ;;
        esac
    done
}

home() {
    [ -d "$home" ] || { echo "Apache Pulsar is not in the cache: run 'pipeline/testing/prepare.sh'" >&2; return 1; }
    command -v java >/dev/null || { echo "no java: install a JRE, 17 or later" >&2; return 1; }
    command -v curl >/dev/null || { echo "no curl: install it" >&2; return 1; }
    echo "$home"
}

case ${1:-} in
fetch | home | serve) "$1" ;;
*) echo "usage: pulsar.sh fetch | home | serve" >&2; exit 2 ;;
esac
