#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The host's black box: sshd starts every command through this, and it writes down when, from where, with which token, and
# how it ended. A command that stands behind the host's fence carries its token as the fourth word after `surefoot-fence`; one
# that only raises the fence is `true`.
log=/var/log/surefoot-lab/commands
command=$SSH_ORIGINAL_COMMAND
token=- what=-
case $command in
  *" surefoot-fence '"*)
    # The shell's own patterns would take a time that grows with the square of the guard's length.
    rest=$(printf '%s\n' "$command" | sed -n "s/.* surefoot-fence '[^']*' //p")
    rest=${rest#* * }
    token=${rest%% *}
    rest=${rest#* * * }
    case $rest in true) what=raise ;; *) what=task ;; esac
    case $token in '' | *[!0-9]*) token=? ;; esac
    ;;
esac
# A handler, unlike a signal that is ignored, is not handed down to the command.
trap : HUP TERM
echo "begin $(date +%s.%N) $$ ${SSH_CLIENT%% *} $token $what" >>$log
case $command in
  internal-sftp | */sftp-server) /usr/lib/openssh/sftp-server ;;
  '') "${SHELL:-/bin/sh}" -l ;;
  *) "${SHELL:-/bin/sh}" -c "$command" ;;
esac
code=$?
echo "end $(date +%s.%N) $$ $code" >>$log
exit $code
