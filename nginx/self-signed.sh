#!/usr/bin/env bash
# self-signed.sh DIR [NAME...] - a certificate for trying out: DIR/cert.pem and DIR/key.pem.
# NAMEs are host names or addresses that clients use; localhost, 127.0.0.1 and this host's name are in it anyway.
# What is there already is never overwritten. Clients must be told to trust cert.pem.
set -euo pipefail

fail() { echo "self-signed.sh: $*" >&2; exit 1; }

alternative_name() {
  if [[ $1 =~ ^[0-9.]+$ || $1 == *:* ]]; then echo "IP:$1"; else echo "DNS:$1"; fi
}

alternative_names() {
  local name
  for name in "$@"; do alternative_name "$name"; done | sort -u | paste -sd, -
}

main() {
  [ $# -ge 1 ] || fail "usage: self-signed.sh DIR [NAME...]"
  local dir=$1
  shift
  command -v openssl >/dev/null || fail "openssl is not here: install it, or put cert.pem and key.pem into $dir"
  if [ -e "$dir/cert.pem" ] || [ -e "$dir/key.pem" ]; then
    fail "$dir has a certificate or a key already: remove cert.pem and key.pem first if they are to be replaced"
  fi
  mkdir -p "$dir"
  local names
  names=$(alternative_names localhost 127.0.0.1 "$(hostname)" "$@")
  (
    umask 077
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 -days 825 \
      -subj "/CN=vllm-compose-router" -addext "subjectAltName=$names" \
      -addext "extendedKeyUsage=serverAuth" -addext "basicConstraints=critical,CA:FALSE" \
      -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null
  ) || fail "openssl could not make a certificate for $names"
  chmod 644 "$dir/cert.pem"
  echo "made a self-signed certificate for $names in $dir"
}

main "$@"
