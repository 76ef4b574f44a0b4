# Read by the installers with `source`: where tools are kept, and how one gets there whole.
#
# A tool lives in a folder with its version in the name, outside of the checkout, so that checkouts share it and an update
# leaves the old one to those who still use it. Nothing ever changes in such a folder: it is either whole or not there.
# shellcheck shell=bash

tools=${LANDFALL_TOOLS:-$HOME/.cache/landfall/tools}

fail() {
    echo "error: $*" >&2
    exit 1
}

# begin NAME: ends the script if the folder NAME is there; else sets `work` to an empty folder beside it, which goes away
# with the script. Two installers of the same tool wait for each other, and the second finds what the first has made.
begin() {
    target=$tools/$1
    if [[ -d $target ]]; then
        echo "$1: already in $target"
        exit
    fi
    mkdir -p "$tools"
    # The lock belongs to the open file, so it ends with the script, however that ends.
    exec 9>"$tools/.$1.lock"
    if ! flock --nonblock 9; then
        echo "$1: another installer is at it, waiting"
        flock 9
    fi
    if [[ -d $target ]]; then
        echo "$1: already in $target"
        exit
    fi
    work=$(mktemp -d "$tools/.$1.XXXXXX")
    trap 'rm -rf "$work"' EXIT
}

# finish FOLDER: makes FOLDER, which is below `work`, the target.
finish() {
    chmod 755 "$1"
    mv -T "$1" "$target"
    echo "$(basename "$target"): in $target"
}

# wheel PACKAGE VERSION SHA256: downloads the wheel of a Python package into `work`; nothing of it is installed or run.
wheel() {
    command -v python3 >/dev/null || fail "python3 with pip is needed to download $1; install python3-pip"
    echo "$1==$2 --hash=sha256:$3" >"$work/requirements.txt"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
        --requirement "$work/requirements.txt" --dest "$work"
}

# need_go VERSION: ends the script with a hint if there is no Go of at least this version. To be called where go.mod is, as Go
# fetches a newer toolchain for it if its user lets it.
need_go() {
    command -v go >/dev/null || fail "Go is missing; install Go $1 or newer (https://go.dev/dl/)"
    local found
    found=$(go env GOVERSION 2>/dev/null) || found=$(GOTOOLCHAIN=local GO111MODULE=off go env GOVERSION)
    [[ $(printf '%s\n' "go$1" "$found" | sort --version-sort | head -n1) == "go$1" ]] ||
        fail "found $found, and Go $1 or newer is needed; install it (https://go.dev/dl/), or set GOTOOLCHAIN=auto"
}
