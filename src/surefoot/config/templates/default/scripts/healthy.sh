#!/bin/sh
# Exit 0 is healthy. Replace this by a request to your service, or by an http check.
set -eu
server=${XDG_STATE_HOME:-$HOME/.local/state}/surefoot-example

test -s "$server/current/index.html"
