#!/bin/sh
# Switches back to the release before this one; before the first there was none. Safe to run again.
set -eu
server=${XDG_STATE_HOME:-$HOME/.local/state}/surefoot-example

if [ -z "$SUREFOOT_PREVIOUS_VERSION" ]; then
    rm -f "$server/current"
    echo "active: none"
else
    ln -sfn "releases/$SUREFOOT_PREVIOUS_VERSION" "$server/.current.new"
    mv -fT "$server/.current.new" "$server/current"
    echo "active: $SUREFOOT_PREVIOUS_VERSION"
fi
