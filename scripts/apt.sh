# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Fetches and unpacks packages of any Debian release and architecture, and installs nothing on this machine.

apt_in() { # FOLDER TOOL ARGUMENTS...: runs apt-get or apt-cache with the lists and the cache of the folder
    "$2" -o APT::Architecture="$(cat "$1/architecture")" -o APT::Architectures="$(cat "$1/architecture")" \
        -o Dir::Etc::sourcelist="$1/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists="$1/lists" \
        -o Dir::State::status="$1/status" -o Dir::Cache="$1/cache" -o APT::Sandbox::User="$(id -un)" "${@:3}"
}

archive() { # LABEL: the URI from which this machine gets the packages of the archive 'Debian' or 'Debian-Security'
    # shellcheck disable=SC2016  # apt's variables, not the shell's
    apt-get indextargets --format '$(LABEL)|$(REPO_URI)' 'Created-By: Packages' | sed -n "s/^$1|//p" | head -n 1
}

update_apt_in() { # FOLDER ARCHIVE RELEASE ARCHITECTURE: makes a new folder for apt_in(), and fetches its lists
    local uri
    rm -rf "$1"
    mkdir -p "$1"/{lists/partial,cache/archives/partial}
    : >"$1/status" # empty: nothing is installed; apt makes its locks beside this file
    uri=$(archive "$2")
    if [ -z "$uri" ]; then
        # shellcheck disable=SC2154  # from lib.sh
        echo "$script: apt on this machine has no source for the archive '$2', which has $3: add one to its sources" >&2
        return 1
    fi
    echo "$4" >"$1/architecture"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $3 main" >"$1/sources.list"
    apt_in "$1" apt-get update -qq --error-on=any
}

unpack() { # ROOT PACKAGE-FILE...
    local package
    for package in "${@:2}"; do
        dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$1" || return
    done
}
