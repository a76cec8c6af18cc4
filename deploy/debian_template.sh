#!/usr/bin/env bash
# Build a small Debian 12 template disk from Debian's packages: UEFI with Secure Boot, cloud-init from a seed disk, sshd.
#
#   deploy/debian_template.sh FILE.qcow2        as root; then `guardhouse template sign` (docs/templates.md)
#
# SOURCES: the apt sources to install from (else this machine's own). MEBIBYTES: the disk's size. PACKAGES: more of them.
set -euo pipefail

out=$(realpath -m "${1:?which file to write}")
sources=${SOURCES:-/etc/apt/sources.list.d/debian.sources}
[[ -e $sources ]] || sources=/etc/apt/sources.list
mebibytes=${MEBIBYTES:-1024}
esp_mebibytes=32
packages=linux-image-cloud-amd64,initramfs-tools,zstd,shim-signed,grub-efi-amd64-signed,systemd-sysv,systemd-resolved
packages+=,udev,dbus,iproute2,cloud-init,sudo,openssh-server${PACKAGES:+,$PACKAGES}

[[ ! -e $out ]] || { echo "$out exists already." >&2; exit 1; }
work=$(mktemp -d "${TMPDIR:-/tmp}/template.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root esp=$work/esp disk=$work/disk.raw

say() { echo "template: $*"; }

install_debian() {
  # The initramfs needs what finds a virtio disk, and nothing else: it is unpacked at each start.
  mkdir -p "$work/initramfs"
  printf '%s\n' virtio_pci virtio_blk ext4 >"$work/initramfs/modules"
  mmdebstrap --quiet --variant=minbase --include="$packages" \
    --aptopt='APT::Install-Recommends "false"' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"' \
    --essential-hook='echo MODULES=list >"$1/etc/initramfs-tools/conf.d/template"' \
    --essential-hook="copy-in '$work/initramfs/modules' /etc/initramfs-tools" \
    --customize-hook='rm -f "$1/etc/apt/sources.list" "$1"/etc/apt/sources.list.d/* "$1"/etc/apt/apt.conf.d/99mmdebstrap' \
    bookworm "$root" "$sources"
}

configure() {
  printf 'LABEL=root / ext4 errors=remount-ro 0 1\n' >"$root/etc/fstab"
  cat >"$root/etc/cloud/cloud.cfg.d/90-guardhouse.cfg" <<-'END'
	# The seed is a disk that only the owner's keys open; no other source is asked.
	datasource_list: [NoCloud]
	locale: false  # the packages that it wants are not here
	grub_dpkg: {enabled: false}  # GRUB is on the boot partition only
	END
  in_root systemctl enable systemd-networkd systemd-resolved ssh
}

in_root() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }

clean() {
  # What is made at the first start, so that no two machines have it in common.
  rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/hostname" "$root/etc/resolv.conf" "$root/var/lib/systemd/random-seed"
  : >"$root/etc/machine-id"
  ln -s /run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
  rm -rf "$root"/var/{cache,log}/* "$root"/var/lib/cloud "$root"/tmp/* "$root"/var/lib/apt/lists/*
}

fill_esp() {
  # Secure Boot: the firmware trusts shim, shim trusts Debian's GRUB, and that starts kernels which Debian has signed.
  mkdir -p "$esp/EFI/BOOT" "$esp/EFI/debian"
  cp "$root/usr/lib/shim/shimx64.efi.signed" "$esp/EFI/BOOT/BOOTX64.EFI"
  cp "$root/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed" "$esp/EFI/BOOT/grubx64.efi"
  cat >"$esp/EFI/debian/grub.cfg" <<-'END'
	search --no-floppy --label --set=root root
	linux /vmlinuz root=LABEL=root ro console=tty0 console=ttyS0
	initrd /initrd.img
	boot
	END
}

assemble() {
  local root_start=$((1 + esp_mebibytes))
  truncate --size "${mebibytes}M" "$disk"
  sfdisk --quiet "$disk" <<-END
	label: gpt
	start=1MiB, size=${esp_mebibytes}MiB, type=uefi, name=esp
	start=${root_start}MiB, size=$((mebibytes - root_start - 1))MiB, type=linux, name=root
	END
  mformat -i "$disk@@1M" -T $((esp_mebibytes * 2048)) -v ESP ::
  mcopy -i "$disk@@1M" -s "$esp/EFI" ::
  mkfs.ext4 -q -L root -d "$root" -E "offset=$((root_start << 20))" "$disk" "$((mebibytes - root_start - 1))M"
  qemu-img convert -c -O qcow2 "$disk" "$out.part"
  mv "$out.part" "$out"
}

say "installing packages from $sources"
install_debian
configure
clean
fill_esp
say "writing $out"
assemble
say "$(du -h "$out" | cut -f1), a disk of $mebibytes MiB. Sign it before it is started anywhere."
