#!/bin/sh
# Stage 1: load modules, mount the root and what must be there before systemd, start stage 2.
export PATH=/bin
targetRoot=/mnt-root
stage2Init=/init

# The stand-in's programs need Debian's paths in a new root too, as stage 2 gives them.
chroot() {
    busybox chroot "$1" @linkDebianPaths@
    busybox chroot "$@"
}

fail() {
    echo
    echo "An error occurred in stage 1 of the boot process, which must mount the"
    echo "root filesystem on '$targetRoot' and then start stage 2."
    if [ -n "$panicOnFail" ]; then
        echo "Rebooting in 1 second..."
        sleep 1
        echo c > /proc/sysrq-trigger
        reboot -f
    fi
    echo "Press one of the following keys: r) to reboot immediately, *) to ignore the error and continue"
    read -r -n 1 reply < /dev/console
    [ "$reply" = r ] && reboot -f
}

mkdir -p /proc /sys /dev /run
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs -o mode=0755 devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t tmpfs -o mode=0755,nosuid,nodev,strictatime tmpfs /run

echo
printf '\033[1;32m<<< @distroName@ Stage 1 >>>\033[0m\n'
echo

root=
for option in $(cat /proc/cmdline); do
    case $option in
        init=*) stage2Init=${option#init=} ;;
        root=*) root=${option#root=} ;;
        boot.panic_on_fail|stage1panic=1) panicOnFail=1 ;;
        boot.trace|debugtrace) set -x ;;
    esac
done
trap 'fail' 0

@preDeviceCommands@

while read -r module; do
    case $module in 9p*) [ -d /sys/bus/virtio ] || continue ;; esac
    insmod "/modules/$module" 2>/dev/null
done < /modules/order

# A device by label, uuid or partition label, or as given; waits for it.
resolve() {
    local tries=0 found
    while [ $tries -lt 200 ]; do
        case $1 in
            /dev/disk/by-label/*) found=$(findfs "LABEL=${1#/dev/disk/by-label/}" 2>/dev/null) ;;
            /dev/disk/by-uuid/*) found=$(findfs "UUID=${1#/dev/disk/by-uuid/}" 2>/dev/null) ;;
            /dev/disk/by-partlabel/*)
                found=$(grep -lx "PARTNAME=${1#/dev/disk/by-partlabel/}" /sys/class/block/*/uevent 2>/dev/null)
                found=${found%/uevent}
                found=${found:+/dev/${found##*/}}
                ;;
            /dev/*) [ -e "$1" ] && found=$1 ;;
            *) found=$1 ;;
        esac
        if [ -n "$found" ]; then echo "$found"; return; fi
        tries=$((tries + 1))
        sleep 0.1
    done
    echo "Timed out waiting for device $1, trying to mount anyway." >&2
    echo "$1"
}

if [ -x /bin/udevadm ]; then
    echo "running udev..."
    mkdir -p /etc/udev
    touch /etc/udev/hwdb.bin
    systemd-udevd --daemon
    udevadm trigger --action=add
    udevadm settle
fi

@preLVMCommands@

if [ -x /bin/lvm ]; then
    echo "starting device mapper and LVM..."
    lvm vgchange -ay
fi
if [ -x /bin/udevadm ]; then
    udevadm trigger --action=add
    udevadm settle
fi

@postDeviceCommands@

while read -r device mountPoint fsType options; do
    echo "mounting $device on $mountPoint..."
    mkdir -p "$targetRoot$mountPoint"
    if [ "$mountPoint" = / ] && [ -n "$root" ]; then device=$root; fi
    case $fsType in
        overlay)
            # Its folders are given as the running system will see them.
            prefixed=
            oldIFS=$IFS; IFS=,
            for option in $options; do
                case $option in
                    lowerdir=/mnt-root*|upperdir=/mnt-root*|workdir=/mnt-root*) ;;
                    lowerdir=*|upperdir=*|workdir=*) option=${option%%=*}=$targetRoot${option#*=} ;;
                esac
                case $option in upperdir=*|workdir=*) mkdir -p "${option#*=}" ;; esac
                prefixed=$prefixed,$option
            done
            IFS=$oldIFS
            mount -t overlay -o "${prefixed#,}" overlay "$targetRoot$mountPoint" || fail
            ;;
        9p|virtiofs|tmpfs) mount -t "$fsType" -o "$options" "$device" "$targetRoot$mountPoint" || fail ;;
        none|bind) mkdir -p "$targetRoot$device"; mount -o "$options" "$targetRoot$device" "$targetRoot$mountPoint" || fail ;;
        *) mount -t "$fsType" -o "$options" "$(resolve "$device")" "$targetRoot$mountPoint" || fail ;;
    esac
done < /etc/mounts

@postMountCommands@

if ! [ -e "$targetRoot$stage2Init" ] && ! [ -L "$targetRoot$stage2Init" ]; then
    echo "stage 2 init script ($targetRoot$stage2Init) not found"
    fail
fi

if [ -x /bin/udevadm ]; then udevadm control --exit; fi

mkdir -m 0755 -p "$targetRoot/proc" "$targetRoot/sys" "$targetRoot/dev" "$targetRoot/run"
mount --move /proc "$targetRoot/proc"
mount --move /sys "$targetRoot/sys"
mount --move /dev "$targetRoot/dev"
mount --move /run "$targetRoot/run"
trap - 0
exec env -i switch_root "$targetRoot" "$stage2Init"
