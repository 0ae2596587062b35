#!/bin/sh
# Make sure that there is a Vulkan device. A real GPU with its driver is preferred and left alone; where there is none (or
# with --software), the software adapter (Mesa's lavapipe) is installed with the system's package manager.
# Usage: setup-vulkan.sh [--software]
set -eu

say() { echo "setup: $*" >&2; }

has_loader() {
    # Not everybody's PATH has ldconfig, and not every ldconfig can list.
    PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so\.1' && return 0
    for f in /lib/libvulkan.so.1 /usr/lib/libvulkan.so.1 /usr/lib64/libvulkan.so.1 /usr/lib/*/libvulkan.so.1 /usr/local/lib/libvulkan.so.1; do
        [ -e "$f" ] && return 0
    done
    return 1
}

# Manifests that the loader would read, one a line.
manifests() {
    old=$IFS; IFS=:
    # shellcheck disable=SC2086 # split at colons
    set -- ${VK_DRIVER_FILES:-${VK_ICD_FILENAMES:-}}
    IFS=$old
    if [ $# -gt 0 ]; then
        for f in "$@"; do [ -e "$f" ] && echo "$f"; done
        return 0
    fi
    for d in /etc/vulkan/icd.d /usr/share/vulkan/icd.d /usr/local/share/vulkan/icd.d "${XDG_DATA_HOME:-${HOME:-/root}/.local/share}/vulkan/icd.d"; do
        for f in "$d"/*.json; do [ -e "$f" ] && echo "$f"; done
    done
    return 0
}

has_software() { has_loader && manifests | grep -Eq 'lvp|swiftshader|vk_swiftshader'; }

# A GPU's device node, and a driver for that maker.
has_gpu() {
    has_loader || return 1
    if [ -e /dev/nvidia0 ] && manifests | grep -q nvidia; then return 0; fi
    for vendor in /sys/class/drm/renderD*/device/vendor; do
        [ -e "$vendor" ] || continue
        case "$(cat "$vendor")" in
            0x1002) manifests | grep -Eq 'radeon|amd' && return 0 ;;
            0x8086) manifests | grep -Eq 'intel' && return 0 ;;
            0x10de) manifests | grep -Eq 'nvidia|nouveau' && return 0 ;;
        esac
    done
    return 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1; then sudo "$@"
    else return 1; fi
}

install_software() {
    if command -v apt-get >/dev/null 2>&1; then
        packages="libvulkan1 mesa-vulkan-drivers"
        say "installing $packages with apt-get (Mesa's software Vulkan adapter)"
        # shellcheck disable=SC2086 # a list
        { as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages ||
            { as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages; }; } >&2
    elif command -v dnf >/dev/null 2>&1; then
        say "installing vulkan-loader and mesa-vulkan-drivers with dnf"
        as_root dnf install -y vulkan-loader mesa-vulkan-drivers >&2
    elif command -v pacman >/dev/null 2>&1; then
        say "installing vulkan-icd-loader and vulkan-swrast with pacman"
        as_root pacman -S --noconfirm --needed vulkan-icd-loader vulkan-swrast >&2
    elif command -v zypper >/dev/null 2>&1; then
        say "installing libvulkan1 and libvulkan_lvp with zypper"
        as_root zypper --non-interactive install libvulkan1 libvulkan_lvp >&2
    elif command -v apk >/dev/null 2>&1; then
        say "installing vulkan-loader and mesa-vulkan-swrast with apk"
        as_root apk add vulkan-loader mesa-vulkan-swrast >&2
    else
        return 1
    fi
}

case "${1:-}" in
    ""|--software) ;;
    *) say "unknown option $1; hint: --software, or nothing"; exit 2 ;;
esac
case "$(uname -s)" in
    Darwin) say "macOS: Metal is built in, nothing to install"; exit 0 ;;
    Linux) ;;
    *) say "this script knows Linux and macOS; on Windows the graphics driver brings DX12 and Vulkan"; exit 0 ;;
esac

if [ "${1:-}" != "--software" ] && has_gpu; then
    say "found a GPU with a Vulkan driver"
    exit 0
fi
if has_software; then
    say "found a software Vulkan adapter"
    exit 0
fi
install_software || true
if has_software; then
    say "the software Vulkan adapter is ready"
    exit 0
fi
say "could not install a software Vulkan adapter"
say "hint: install the Vulkan loader and Mesa's lavapipe yourself, as root: on Debian and Ubuntu libvulkan1 and"
say "hint: mesa-vulkan-drivers, on Fedora vulkan-loader and mesa-vulkan-drivers, on Arch vulkan-icd-loader and vulkan-swrast"
exit 1
