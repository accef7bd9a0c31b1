#!/bin/sh
# Builds the example services and lays their files where their config.yaml looks for them: NAME/NAME/ARCHITECTURE/.
# Usage: examples/build.sh [OUTPUT FOLDER]; without one the bundles are laid in examples/bundles.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
out=${1:-$here/bundles}
case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) echo "no example images for $(uname -m)" >&2; exit 1 ;;
esac
# The folder decides: cargo reads examples/.cargo/config.toml, which makes the programs static.
cd "$here"
CARGO_TARGET_DIR=${AOS_EXAMPLES_TARGET:-$here/target} cargo build --quiet --release
target=${AOS_EXAMPLES_TARGET:-$here/target}
for name in hello counter; do
    mkdir -p "$out/$name/$name/$arch"
    sed "s/architecture: amd64/architecture: $arch/" "$here/$name/config.yaml" > "$out/$name/config.yaml"
    install -m 0755 "$target/release/$name" "$out/$name/$name/$arch/$name"
done
echo "bundles are in $out: sign one with 'aos bundle sign $out/hello'"
