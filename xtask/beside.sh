#!/bin/sh
# beside.sh FIRST SECOND: runs two shell commands side by side, fails when one fails, and ends the first when the second fails.
set -u

sh -c "$1" </dev/null &
first=$!
sh -c "$2" </dev/null &
second=$!
trap 'kill "$first" "$second" 2>/dev/null; exit 130' INT TERM HUP

wait "$second"
second_status=$?
if [ "$second_status" -ne 0 ]; then
    kill "$first" 2>/dev/null
    wait "$first" 2>/dev/null
    exit "$second_status"
fi
wait "$first"
