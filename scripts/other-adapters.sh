#!/bin/sh
# Run tests that need a device on other software adapters than the system's: SwiftShader, whose limits are near the smallest
# that Vulkan allows (kernels and reference dumps), and Mesa 26 (training too). Both are fetched from Debian's archive into a
# folder; nothing is installed.
# Usage: other-adapters.sh [swiftshader|mesa26]... (both by default)    Needs: Debian or Ubuntu on x86-64, apt-get, dpkg-deb
set -eu

cd "$(dirname "$0")/.."
prefix=$PWD/target/adapters
[ $# -gt 0 ] || set -- swiftshader mesa26

say() { echo "adapters: $*" >&2; }

for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || { say "$tool is missing: this script needs Debian or Ubuntu"; exit 1; }
done

# The address of the archive that this system uses.
archive() {
    cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null |
        awk '/^URIs:/ {print $2; exit} /^deb / {for (i = 2; i <= NF; i++) if ($i ~ /:/) {print $i; exit}}'
}

# Unpacks packages of a release, with all that they depend on where the first word is `closure`, below a folder.
fetch() {
    kind=$1 folder=$2 release=$3
    shift 3
    mkdir -p "$folder/lists/partial" "$folder/debs/partial" "$folder/root"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    for suite in $release; do
        echo "deb [signed-by=$keyring] $(archive) $suite main"
    done > "$folder/sources.list"
    options="-qq -o Dir::Etc::sourcelist=$folder/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$folder/lists
        -o Dir::Cache::archives=$folder/debs -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root"
    # shellcheck disable=SC2086 # options are words
    apt-get $options update
    if [ "$kind" = closure ]; then
        # shellcheck disable=SC2086
        apt-get $options -o Dir::State::status=/dev/null -y --no-install-recommends --download-only install "$@"
    else
        # shellcheck disable=SC2086
        (cd "$folder/debs" && apt-get $options download "$@")
    fi
    for package in "$folder"/debs/*.deb; do dpkg-deb -x "$package" "$folder/root"; done
}

# These tests on the adapter that the variables name. A missing one fails them: none is skipped.
run_tests() {
    cargo test --locked "$@"
}

export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/tmp}"
for adapter in "$@"; do
    case $adapter in
    swiftshader)
        folder=$prefix/swiftshader
        driver=$folder/root/usr/lib/chromium/vk_swiftshader_icd.json
        [ -e "$driver" ] || fetch alone "$folder" bookworm chromium-common
        say "SwiftShader"
        VK_DRIVER_FILES=$driver run_tests --test kernels --test oracle
        ;;
    mesa26)
        folder=$prefix/mesa26
        libraries=$folder/root/usr/lib/x86_64-linux-gnu
        [ -e "$libraries/libvulkan_lvp.so" ] ||
            fetch closure "$folder" "trixie trixie-backports" mesa-vulkan-drivers/trixie-backports libvulkan1
        printf '{"file_format_version":"1.0.1","ICD":{"api_version":"1.4.0","library_path":"%s/libvulkan_lvp.so"}}\n' \
            "$libraries" > "$folder/lvp.json"
        say "Mesa 26"
        # It takes vectors of 256 bits unless it is told; longer ones have kernels of their own.
        if grep -q avx512f /proc/cpuinfo; then export LP_NATIVE_VECTOR_WIDTH=512; fi
        # It needs its own C library: the test binaries run through that one's loader. Programs that tests start do not.
        VK_DRIVER_FILES=$folder/lvp.json NODEVICE_SELECT=1 \
            CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$libraries/ld-linux-x86-64.so.2 --library-path $libraries" \
            run_tests --test kernels --test oracle --test training
        ;;
    *)
        say "expected swiftshader or mesa26, not $adapter"
        exit 2
        ;;
    esac
done
say "all tests passed on: $*"
