#!/bin/sh
# Runs commands that arrive on a serial line. The line may carry kernel messages too, so
# requests and answers are single lines with a marker, a checksum, and base64 inside:
#   @npa ping NONCE                     -> @npa pong NONCE RELEASE
#   @npa run ID SECONDS SUM BASE64      -> @npa ack ID | @npa nak ID
#                                          @npa out ID NUMBER BASE64 ...
#                                          @npa err ID NUMBER BASE64 ...
#                                          @npa end ID STATUS OUT_SUM ERR_SUM
# SUM is the first 16 digits of the SHA-256 of the base64 text. A command runs once: asking again
# with the same ID sends the same answer again.
set -f
exec <"$1" >"$1" 2>&1
stty raw -echo
work=/run/npa-console
mkdir -p $work

sum() {
    sha256sum | cut -c 1-16
}

say() {
    printf '\n@npa %s\n' "$*"
}

answer() {
    for kind in out err; do
        awk -v prefix="@npa $kind $1 " '{ print prefix NR " " $0 }' $work/$1.$kind
    done
    say end $1 "$(cat $work/$1.status)" "$(sum <$work/$1.out)" "$(sum <$work/$1.err)"
}

run() {
    if [ ! -e $work/$1.status ]; then
        if [ "$(printf %s "$4" | sum)" != "$3" ]; then
            say nak $1
            return
        fi
        say ack $1
        # Results of the last few commands are enough for repeated questions.
        rm -f $last
        last="$work/$1.out $work/$1.err $work/$1.status"
        printf %s "$4" | base64 -d >$work/command
        # By its path: busybox would run its own shell, and that its own applets.
        timeout -s KILL $2 /usr/bin/sh $work/command </dev/null >$work/stdout 2>$work/stderr
        status=$?
        base64 $work/stdout >$work/$1.out
        base64 $work/stderr >$work/$1.err
        echo $status >$work/$1.status
    fi
    answer $1
}

last=
say ready "$(uname -r)"
while IFS= read -r line; do
    case $line in
    *"@npa "*) ;;
    *) continue ;;
    esac
    set -- ${line#*@npa }
    case $1 in
    ping) say pong $2 "$(uname -r)" ;;
    run) run $2 $3 $4 $5 ;;
    esac
done
