#!/bin/sh
# First process of the guest. Kernel command line:
#   npa.ip=ADDRESS/LENGTH  address of eth0 (none: eth0 is only brought up)
#   npa.mtu=BYTES          MTU of eth0
#   npa.shell=1|0          1 (default): the shell module drives the card; 0: the stock drivers
#   npa_shell.NAME=VALUE   parameters of the shell module (read by modprobe)
export PATH=/usr/bin HOME=/root TERM=linux
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
dmesg -n 1

value() {
    for word in $(cat /proc/cmdline); do
        case $word in
        "$1"=*)
            echo "${word#*=}"
            return
            ;;
        esac
    done
    echo "$2"
}

hostname guest
ip link set lo up
modprobe virtio_pci
modprobe virtio_rng
modprobe virtio_blk

if [ "$(value npa.shell 1)" = 1 ]; then drivers=npa_shell; else drivers="virtio_net igbvf"; fi
for driver in $drivers; do
    modprobe "$driver" || echo "init: cannot load $driver"
done
tries=0
while [ ! -e /sys/class/net/eth0 ] && [ $tries -lt 100 ]; do
    sleep 0.05
    tries=$((tries + 1))
done
if [ -e /sys/class/net/eth0 ]; then
    # Only frames that a test sends: no router solicitations, no duplicate address detection.
    echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6
    mtu=$(value npa.mtu "")
    [ -n "$mtu" ] && ip link set eth0 mtu "$mtu"
    address=$(value npa.ip "")
    [ -n "$address" ] && ip address add "$address" brd + dev eth0
    ip link set eth0 up
else
    echo "init: no eth0 with $drivers"
fi

while :; do
    setsid /usr/lib/npa/console /dev/ttyS0
    sleep 1
done
