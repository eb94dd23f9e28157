#!/usr/bin/env bash
# A private lock server, and four commands that all want the lock "demo": one runs, the others wait for their turn.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
finish() {
    kill $(jobs -p) 2>/dev/null || true
    wait
    rm -rf "$folder"
}
trap finish EXIT

lockersh() { dist/ipclocker lockersh --path "$folder/lockerd" "$@"; }
say() { printf '\n# %s\n' "$*"; }

say "ipclocker lockerd --nofork --path $folder/lockerd --state-dir $folder &"
dist/ipclocker lockerd --nofork --path "$folder/lockerd" --state-dir "$folder" &
server=$!
for _ in {1..200}; do
    [ -S "$folder/lockerd" ] && break
    sleep 0.05
done

say "ipclocker lockersh --path $folder/lockerd --lock demo --verbose -- COMMAND, for four at once"
workers=()
for name in anna berta carla doris; do
    dist/ipclocker lockersh --path "$folder/lockerd" --lock demo --verbose \
        -- sh -c "echo 'has the lock, works for a second'; sleep 1" > >(sed -u "s/^/$name: /") 2>&1 &
    workers+=($!)
    sleep 0.1 # so that they come in this order
done

say "ipclocker lockersh --path $folder/lockerd --locklist"
lockersh --locklist
echo

wait "${workers[@]}"
say "all are done, no lock is held:"
lockersh --locklist
kill "$server"
wait "$server" || true
say "the server is stopped"
