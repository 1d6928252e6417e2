#!/bin/sh
# First process of the lab host. The kernel command line says what to do:
#   lab.mode=exec   run what /lab/run.json names, report through the control port, power off
#   lab.mode=shell  an interactive shell on the console, power off when it ends
#   lab.cpus=LIST   CPUs that programs run on, guests among them (default: all)
export PATH=/lab/bin:/usr/bin HOME=/root TERM=linux LAB_IMAGES=/lab/images
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm /dev/hugepages
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
mount -t cgroup2 cgroup2 /sys/fs/cgroup
dmesg -n 4
hostname lab-host
ip link set lo up

modprobe 9pnet_virtio
modprobe 9p
share() {
    mkdir -p "$2"
    mount -t 9p -o "trans=virtio,version=9p2000.L,msize=262144,$3" "$1" "$2" ||
        echo "lab host: cannot mount $1"
}
# Nothing changes in `lab` while the lab host runs, so it may be cached.
share lab /lab ro,cache=loose
share out /out rw,cache=none,access=client
share workspace /workspace ro,cache=none

# A timer stays on the CPU that set it: the heartbeat tells a CPU without timer from an idle one.
echo 0 >/proc/sys/kernel/timer_migration

mode=exec rows=24 columns=80
for word in $(cat /proc/cmdline); do
    case $word in
    lab.mode=*) mode=${word#*=} ;;
    lab.rows=*) rows=${word#*=} ;;
    lab.columns=*) columns=${word#*=} ;;
    lab.cpus=*)
        taskset -p -c "${word#*=}" $$ >/dev/null ||
            { echo "lab host: cannot keep to CPUs ${word#*=}"; sync; poweroff -f; }
        ;;
    esac
done

interactive() {
    stty -F /dev/ttyS0 rows "$rows" columns "$columns"
    cd /root
    setsid cttyhack bash --rcfile /etc/profile
}

case $mode in
shell)
    echo "lab host ready: 'lab up' makes PF, VFs, bridge, taps and pf-control; exit ends it"
    interactive
    ;;
*)
    lab agent
    case $? in
    0) ;;
    10) interactive ;; # the order says to keep the lab host
    *) echo "lab host: the agent failed" ;;
    esac
    ;;
esac
sync
poweroff -f
sleep 60
