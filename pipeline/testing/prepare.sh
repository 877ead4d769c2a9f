#!/usr/bin/env bash
# Gets what the tests need beyond Rust and a C compiler, then runs the command it is given with what it could get.
#
#   prepare.sh cargo test --workspace --features smartpulse/full
#
# - `protoc` builds the Pulsar client; `redis-server` is a real Redis for tests, `openssl` makes its certificate: Debian
#   packages, installed where this may; and `promtool`, which checks alert rules, from the package `prometheus`.
# - `python3` with `venv`, for clients from PyPI.
# - Apache Pulsar: from Maven Central into the cache folder, once (250 MB).
# What cannot be had is said, with the tests that are skipped and why. With CI=true nothing may be missing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
missing=()

say() { printf 'prepare: %s\n' "$*"; }

# Prints why a thing is not there and what that costs.
lacks() { # thing, reason, consequence
    say "no $1 ($2): $3"
    missing+=("$1")
}

# Installs a Debian package where a command fails without it and this user may.
install() { # package, command that succeeds when it is there
    local package=$1 options=()
    shift
    "$@" >/dev/null 2>&1 && return
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    say "installing $package"
    # It recommends an exporter, which would run for the whole machine.
    [ "$package" != prometheus ] || options=(--no-install-recommends)
    # The lists of a new machine are empty.
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q "${options[@]}" "$package" >/dev/null 2>&1 ||
        { apt-get update -q >/dev/null 2>&1 && DEBIAN_FRONTEND=noninteractive apt-get install -y -q "${options[@]}" "$package" >/dev/null 2>&1; } || return 1
    # Some start a server for the whole machine; tests start their own.
    case $package in redis-server | prometheus) service "$package" stop >/dev/null 2>&1 || true ;; esac
    "$@" >/dev/null 2>&1
}

# Clients of other makers (python-tds, schemathesis) are installed by their tests, into the target folder.
install python3-venv python3 -c 'import venv, ensurepip' ||
    lacks "python3 with venv" "install the package python3-venv" "tests with clients from PyPI are skipped"

excluded=()
install redis-server command -v redis-server ||
    lacks redis-server "install the package redis-server" "tests with a real Redis are skipped"
install openssl openssl version ||
    lacks openssl "install the package openssl" "the test of Redis with TLS is skipped"
install prometheus command -v promtool ||
    lacks promtool "install the package prometheus" "the test of the alert rules is skipped"
if ! install protobuf-compiler command -v protoc; then
    lacks protoc "install the package protobuf-compiler" "smartpulse-pulsar is not built, and its tests are skipped"
    excluded=(--exclude smartpulse-pulsar)
    set -- "${@/smartpulse\/full/smartpulse/jwks,smartpulse/redis,smartpulse/stand-in}"
elif reason=$(bash "$here/pulsar.sh" home 2>&1 >/dev/null); then
    :
elif say "fetching Apache Pulsar"; ! reason=$(bash "$here/pulsar.sh" fetch 2>&1); then
    lacks "Apache Pulsar" "${reason:-it could not be fetched}" "tests with a real Pulsar are skipped"
fi

if [ ${#missing[@]} -gt 0 ] && [ "${CI:-}" = true ]; then
    say "CI=true, and nothing may be missing: ${missing[*]}"
    exit 1
fi
[ ${#missing[@]} -gt 0 ] || say "redis-server, openssl, promtool, protoc, python3 and Apache Pulsar are here"
[ $# -eq 0 ] || exec "$@" "${excluded[@]}"
