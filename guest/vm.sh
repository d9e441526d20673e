# shellcheck shell=bash
# The virtual machine of `guest/build` and `guest/run`, sourced by both.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=$(realpath -m "${SHRBUF_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/shrbuf}/guest")
# Made from these files, so any change in them gives another image.
image=$cache/image-$(cat "$here"/{build,init,tsc-khz.c} "$here"/vkms-*.patch | sha256sum | cut -c1-12)
# What is found out once per boot of the host, with this file as it is.
script=$(sha256sum <"$here/vm.sh" | cut -c1-8)
boot_id=$(cut -c1-8 /proc/sys/kernel/random/boot_id)
# SIGTERM when the shell dies, so that not even kill -9 leaves a virtual machine behind; `timeout` passes it on.
limit=(setpriv --pdeathsig TERM timeout -k 2)

# machine MEMORY KERNEL-PARAMETERS: after host_facts, sets the array `vm` to the command that starts it, save for serial ports,
# of which the first is the console, and folders. No device beyond what is used: each costs boot time.
machine() {
    vm=(qemu-system-x86_64 -accel "$accel" -cpu "$cpu" "${processors[@]}" -m "$1"
        -M "q35,sata=off,smbus=off,usb=off,i8042=off,vmport=off,graphics=off" -nodefaults -no-user-config -no-reboot
        -display none -device "vmgenid,guid=auto" -kernel "$image/vmlinux" -initrd "$image/initramfs"
        -append "console=ttyS0 loglevel=5 panic=-1 oops=panic mitigations=off nowatchdog rdinit=/init $clock $2")
}

# share TAG FOLDER [readonly]: adds a folder to `vm`. Commas separate QEMU's options, so one in a path is doubled.
share() {
    vm+=(-fsdev "local,id=$1,path=${2//,/,,},security_model=none,multidevs=remap${3:+,readonly=on}"
        -device "virtio-9p-pci,fsdev=$1,mount_tag=$1")
}

# "Fast" string instructions are slow emulated, a byte at a time: without them a boot takes a tenth less.
emulated=max,-mtrr,-erms,-fsrm

# clock_of KHZ: what the kernel is told of a time stamp counter of an emulated processor. lpj is its steps in one tick of 1/250 s.
clock_of() { echo "tsc=reliable tsc_early_khz=$1 lpj=$(($1 * 4)) no_timer_check"; }

# Sets `accel`, `cpu` and `processors`, for QEMU, and `clock`, kernel parameters; found out once per boot of the host.
host_facts() {
    local facts=$cache/host-$boot_id-$script khz said vm
    processors=(-smp 2)
    if [ ! -e "$facts" ]; then
        # /dev/kvm can exist and not work: it opens, and then hangs in the guest's first instructions.
        accel=kvm cpu=max clock=''
        machine 512 probe=1
        if [ ! -w /dev/kvm ] || ! said=$("${limit[@]}" 5 "${vm[@]}" -serial null -serial stdio 2>&1 </dev/null) ||
            [[ $said != *running* ]]; then
            accel='tcg,thread=multi' cpu=$emulated
            # The guest reads the host's time stamp counter, without leaving user space. Its kernel would not trust it,
            # and would measure it wrongly when the host is busy.
            khz=$("$image/tsc-khz")
            clock=$(clock_of "$khz")
        fi
        find "$cache" -name 'host-*' ! -name "host-$boot_id-*" -delete
        declare -p accel cpu clock | sed 's/^declare -- //' >"$facts.$$"
        mv "$facts.$$" "$facts"
    fi
    # shellcheck source=/dev/null
    . "$facts"
}

# After host_facts: an emulated processor that takes a nanosecond of the guest's time for each instruction, whatever else the
# host does. Time that a program took is then the number of its instructions.
count_instructions() {
    accel='tcg,thread=single' cpu=$emulated processors=(-smp 1 -icount shift=0)
    clock=$(clock_of 1000000)
}

# snapshot_path OPTIONS SETUP: the snapshot of this image and a machine of these options with the drivers of the file
# SETUP. It also depends on QEMU and, for the clock in it, on the host's boot.
snapshot_path() {
    local key
    key=$({ echo "$image $script $accel $cpu $clock $1"; stat -c %Y "$(command -v qemu-system-x86_64)"; cat "$2"; } | sha256sum | cut -c1-12)
    echo "$cache/state-$boot_id-$key"
}

# take_snapshot STATE FOLDER: boots `vm` as far as the loaded drivers and saves that state in the file STATE, from which
# runs then go on in a fraction of the time of a boot. One process takes it, others wait. FOLDER gets the console as
# `serial`. While it lasts, `qemu` is the process to kill.
take_snapshot() {
    local done=0
    exec 8>"$cache/lock-state"
    flock 8
    if [ ! -e "$1" ]; then
        save_state "$1.part" "$2" && mv "$1.part" "$1" || done=1
        rm -f "$cache"/state-*.part
        # Those of an earlier boot are of no use; of those of this boot, the last twelve used will do.
        find "$cache" -name 'state-*' ! -name "state-$boot_id-*" -delete
        find "$cache" -name "state-$boot_id-*" -printf '%T@ %p\n' | sort -rn | tail -n +13 | cut -d' ' -f2- | xargs -r -d '\n' rm -f
    fi
    exec 8>&-
    return $done
}

save_state() {
    local state=$1 folder=$2
    : >"$folder/ready"
    # QEMU saves through a command. It runs in the cache folder, so that the command needs no path, nor quoting.
    coproc MONITOR {
        cd "$cache" && exec "${limit[@]}" 300 "${vm[@]}" -serial "file:$folder/serial" -serial "file:$folder/ready" \
            -monitor stdio 2>&1 8>&-
    }
    qemu=$MONITOR_PID
    exec 6>&"${MONITOR[1]}" 7<&"${MONITOR[0]}"
    until [ -s "$folder/ready" ]; do
        kill -0 "$qemu" 2>/dev/null || return 1
        sleep 0.05
    done
    printf '%s\n' 'migrate_set_parameter max-bandwidth 100G' "migrate \"exec:cat >${state##*/}\"" 'info migrate' quit >&6
    cat <&7 >"$folder/monitor"
    exec 6>&- 7>&-
    wait "$qemu" || true
    qemu=
    grep -q 'Migration status: completed' "$folder/monitor"
}
