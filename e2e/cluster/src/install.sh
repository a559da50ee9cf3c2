#!/bin/sh
# install.sh PACKAGE...: installs Debian packages, as root. Debian starts a service when its package is installed (etcd,
# containerd). The cluster runs its own; a policy that says no, for as long as this takes, keeps the machine as it was. One
# that was there before is left alone.
set -eu
policy=${POLICY_RC_D:-/usr/sbin/policy-rc.d}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get --quiet --quiet --yes --no-install-recommends "$@" </dev/null >&2
}

if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
apt update
apt install "$@"
