#!/bin/sh
# Writes what nginx cannot read from its environment, and becomes nginx.
#   HTTPS_PORT         the host's port, for the redirect from http
#   OPERATOR_NETWORKS  networks that see the operators' pages, space separated
#   RUN_DIR            where to write; /run/nginx, which gateway.conf includes from
set -eu

run=${RUN_DIR:-/run/nginx}
port=${HTTPS_PORT:-443}

fail() { echo "nginx/start.sh: $*" >&2; exit 1; }

case $port in '' | *[!0-9]*) fail "HTTPS_PORT is '$port': write a port's number" ;; esac
if [ "$port" = 443 ]; then suffix=; else suffix=:$port; fi

mkdir -p "$run"
# 308 keeps method and body: a POST stays a POST.
echo "return 308 https://\$host$suffix\$request_uri;" >"$run/redirect.conf"
{
  for network in ${OPERATOR_NETWORKS:-}; do
    case $network in
      *[!0-9a-fA-F:./]*) fail "OPERATOR_NETWORKS has '$network': write networks such as 10.1.0.0/16" ;;
    esac
    echo "allow $network;"
  done
  echo "deny all;"
} >"$run/operators.conf"

exec nginx -g 'daemon off;'
