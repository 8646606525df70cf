#!/bin/sh
# Switches to the release, at one instant. Safe to run again.
set -eu
server=${XDG_STATE_HOME:-$HOME/.local/state}/surefoot-example

ln -sfn "releases/$SUREFOOT_VERSION" "$server/.current.new"
mv -fT "$server/.current.new" "$server/current"
echo "active: $SUREFOOT_VERSION"
