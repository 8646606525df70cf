#!/bin/sh
# Makes the release beside the others. Nothing that runs is touched. Safe to run again.
set -eu
server=${XDG_STATE_HOME:-$HOME/.local/state}/surefoot-example
release=$server/releases/$SUREFOOT_VERSION

mkdir -p "$release"
echo "<h1>my-project $SUREFOOT_VERSION</h1>" > "$release/index.html.new"
mv "$release/index.html.new" "$release/index.html"
echo "built $release"
