# First process of a cluster's namespaces (network, mount, pid). All of the cluster lives below it: when it dies,
# the kernel ends every process, mount and link in here, however it died.
set -eu
root=$1

resolv=$(readlink -f /etc/resolv.conf || echo /etc/resolv.conf)
mkdir -p /var/lib/cni /var/lib/kubelet
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/log
mount -t tmpfs -o mode=755 tmpfs /var/lib/cni
mount --bind "$root/kubelet" /var/lib/kubelet
mkdir -p /run/netns /run/containerd "$(dirname "$resolv")"
[ -e "$resolv" ] || : >"$resolv"
mount --bind "$root/config/resolv.conf" "$resolv"
# Pods' mounts must pass between kubelet and containers; nothing passes to the host, which is another peer group.
mount --make-rshared /

ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
: >/run/namespace-made

# Adopted orphans (shims, components) are reaped by the shell's wait.
while :; do
	sleep 3600 &
	wait $! || :
done
