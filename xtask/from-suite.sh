#!/bin/sh
# from-suite.sh SUITE DIR PACKAGE...
#
# Unpacks packages of another suite of this host's own distribution into DIR/unpacked. The sources are
# the host's with that suite's name put in; apt works in DIR, so that nothing on the host changes.
set -eu
suite=$1 dir=$2
shift 2
. /etc/os-release
mkdir -p "$dir"
cd "$dir"
mkdir -p apt/parts apt/lists/partial apt/cache/archives/partial apt/debs
: >apt/status
for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
    [ -e "$file" ] || continue
    name=$(basename "$file" | sed 's/^sources.list$/main.list/')
    # One suite, however many of them the host has.
    sed "s/\\b$VERSION_CODENAME-\\(security\\|updates\\|backports\\)\\b/$VERSION_CODENAME/g; s/\\b$VERSION_CODENAME\\b/$suite/g" \
        "$file" >"apt/parts/$name"
done
cat >apt/conf <<CONF
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$PWD/apt/parts";
Dir::State::lists "$PWD/apt/lists";
Dir::State::status "$PWD/apt/status";
Dir::Cache "$PWD/apt/cache";
APT::Sandbox::User "root";
CONF
export APT_CONFIG="$PWD/apt/conf"
# A line may name what there is not: security updates of backports, say. What is missing shows below.
apt-get -qq update 2>apt/update.log || true
(cd apt/debs && apt-get -qq download "$@") || { cat apt/update.log >&2; exit 1; }
for package in apt/debs/*.deb; do
    dpkg-deb -x "$package" unpacked
done
