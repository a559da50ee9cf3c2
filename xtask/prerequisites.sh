#!/bin/sh
# prerequisites.sh [TARGET...]: sees that a fresh machine has what the build and the cluster need. Rust and Go are only
# checked. Missing Debian packages are installed when this runs as root; else the one command that installs them is printed.
# The targets named bring up a cluster, so they need root: said first, not after an hour of building. POSIX sh: runs before
# anything is built.
set -eu
cd "$(dirname "$0")/.."

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

have() {
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1
}

# at_least FOUND NEEDED: compares versions such as 1.95.0 and 1.95.
at_least() {
    [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]
}

# check_root TARGET...: nothing to check without a target.
check_root() {
    [ "$#" = 0 ] || [ "$(id -u)" = 0 ] || fail "\`make $*\` brings up a real Kubernetes, which needs root: sudo -E env \"PATH=\$PATH\" make $*"
}

check_rust() {
    needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    have cargo || fail "Rust $needed is needed, and cargo is not on the PATH. Install it with rustup: https://rustup.rs"
    # rustup fetches the toolchain that rust-toolchain.toml names; what it says while it does is worth seeing.
    found=$(cargo --version | cut -d ' ' -f 2) || fail "Rust $needed is needed: \`cargo --version\` failed, see above."
    at_least "$found" "$needed" || fail "Rust $needed is needed; cargo is $found. With rustup: rustup toolchain install $needed"
    for part in fmt clippy; do
        cargo "$part" --version >/dev/null 2>&1 || fail "cargo $part is missing. With rustup: rustup component add rustfmt clippy"
    done
}

check_go() {
    needed=$(sed -n 's/^go \([0-9]*\.[0-9]*\).*/\1/p' e2e/cluster/components/*/go.mod | sort -V | tail -n 1)
    advice="Go $needed or newer builds Kubernetes and Helm for the tests. Install it: https://go.dev/dl"
    have go || fail "$advice (go is not on the PATH)"
    # Asked outside of any module, so that no toolchain line makes go fetch another version of itself.
    found=$(cd / && go env GOVERSION | sed 's/^go//; s/[^0-9.].*//')
    at_least "$found" "$needed" || fail "$advice (found $found)"
}

# Lines of: what must be there, and the Debian package that brings it. Programs by name, files by path.
missing_packages() {
    while read -r thing package; do
        case $thing in
            /*) set -- $thing && [ -e "$1" ] || echo "$package" ;;
            *) have "$thing" || echo "$package" ;;
        esac
    done <<LIST
cc gcc
c++ g++
make make
cmake cmake
/usr/lib/llvm-*/lib/libclang*.so* libclang-dev
/usr/lib/clang/*/include/stddef.h libclang-dev
/etc/ssl/certs/ca-certificates.crt ca-certificates
objcopy binutils
ldd libc-bin
git git
pip3 python3-pip
etcd etcd-server
containerd containerd
runc runc
/usr/lib/cni/bridge containernetworking-plugins
iptables iptables
conntrack conntrack
ip iproute2
mount mount
nsenter util-linux
setpriv util-linux
LIST
}

check_packages() {
    packages=$(missing_packages | sort -u | tr '\n' ' ' | sed 's/ $//')
    [ -n "$packages" ] || return 0
    command="apt-get install --yes --no-install-recommends $packages"
    if [ "$(id -u)" != 0 ] || ! have apt-get; then
        fail "These Debian packages are missing. Install them, then run this again:
  sudo $command"
    fi
    echo "Missing Debian packages are installed, their services stay off: $command" >&2
    # shellcheck disable=SC2086 # one word a package
    sh e2e/cluster/src/install.sh $packages || fail "apt-get could not install: $packages"
}

check_root "$@"
check_rust
check_go
check_packages
