# shellcheck shell=bash
# What the scripts share: where things are, settings, and talking to Docker. Sourced, never run.

DEPLOY=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ROOT=$(dirname "$DEPLOY")
RUN=$DEPLOY/.run # what the scripts write: secrets, a self-signed certificate, logs of compose
ENV_FILE=$DEPLOY/.env
EXAMPLE=$DEPLOY/.env.example
PROGRAM=$(basename "$0")

GATEWAY=inference-gateway
# shellcheck disable=SC2034  # used by those that source this
IN_GATEWAY="--config /etc/router/backends.yaml --state-dir /var/lib/router" # for the router's commands in there
NETWORK=inference-network
SIM_ENGINES="text2sql chat"
STATE_VOLUMES=(inference-state inference-state-sim)
MODEL_VOLUME=inference-model-cache

say() { printf '%s\n' "$*"; }

# One sentence that says what is wrong and what to do about it; the end.
fail() {
  printf '%s: %s\n' "$PROGRAM" "$*" >&2
  exit 1
}

# setting NAME DEFAULT: as Compose takes it: from the environment, else from the file, else the default.
# An empty value counts as none.
setting() {
  local name=$1 value
  if [ -n "${!name+given}" ]; then value=${!name}; else value=$(value_in_file "$name" "$ENV_FILE"); fi
  printf '%s' "${value:-${2-}}"
}

# The last NAME=value of a file, without quotes, comment and trailing space; empty where there is none.
value_in_file() {
  [ -r "$2" ] || return 0
  sed -n -e "s/\r\$//" -e "s/^[[:space:]]*$1=//p" "$2" | tail -n 1 |
    sed -E -e '/^"/{s/^"([^"]*)".*/\1/;b' -e '}' -e "/^'/{s/^'([^']*)'.*/\\1/;b" -e '}' \
      -e 's/(^|[[:space:]]+)#.*$//' -e 's/[[:space:]]+$//'
}

# compose FILE ARGUMENT...: on compose.FILE.yaml with the settings of .env.
compose() {
  local file=$1
  shift
  docker compose --env-file "$ENV_FILE" -f "$DEPLOY/compose.$file.yaml" "$@"
}

# The engines to run, by name.
engines() {
  if [ "${SIM:-}" = yes ]; then printf '%s' "$SIM_ENGINES"; else setting ENGINES "text2sql chat"; fi
}

# The compose file an engine is in.
file_of() { if [ "${SIM:-}" = yes ]; then printf sim; else printf '%s' "$1"; fi; }

# gpu_variable text2sql -> TEXT2SQL_GPU
variable_of() {
  local name=${1^^}
  printf '%s_%s' "${name//[!A-Z0-9]/_}" "$2"
}

require_docker() {
  command -v docker >/dev/null ||
    fail "docker is not installed: install Docker Engine, see https://docs.docker.com/engine/install/"
  docker version >/dev/null 2>&1 ||
    fail "the Docker engine does not answer: start it (systemctl start docker), and see that this user may use it (docker version)"
}

# inspect CONTAINER FORMAT ELSE: a container's facts; ELSE where there is no such container.
inspect() {
  local facts
  if facts=$(docker container inspect -f "$2" "$1" 2>/dev/null); then printf '%s\n' "$facts"; else printf '%s\n' "$3"; fi
}

container_state() { inspect "$1" '{{.State.Status}}' absent; }

is_running() { [ "$(container_state "$1")" = running ]; }

# Its process may write below .run alone, and two of these scripts at once would undo each other's work.
claim() {
  (umask 077 && mkdir -p "$RUN")
  chmod 700 "$RUN" # Docker, or a copy of the checkout, may have made it for everybody
  exec 9>"$RUN/lock"
  if command -v flock >/dev/null && ! flock -n 9; then
    fail "another start-all.sh or stop-all.sh is running here: wait for its end"
  fi
}
