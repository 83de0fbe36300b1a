#!/bin/sh
# Test the configuration, reload it, and return when only new workers take requests.
# Prints how many old workers still finish a response, and the size of the evidence log in bytes.
# Runs inside the nginx container.
set -eu

conf=/etc/nginx/lab/nginx.conf
evidence=/var/log/nginx/lab/access.jsonl
written=${1:-}     # the SHA-256 of the upstream.conf that is to be read
limit=250          # polls, one every 20 ms

# A worker that takes requests has this title; one that only finishes has more words in it.
taking() { grep -lzx '[n]ginx: worker process' /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3 || true; }

both() { for pid in $1; do case " $2 " in *" $pid "*) printf '%s ' "$pid" ;; esac; done; }

finishing() { grep -lzx '[n]ginx: worker process is shutting down' /proc/[0-9]*/cmdline 2>/dev/null | wc -l || true; }

seen=$(sha256sum < /etc/nginx/lab/active/upstream.conf | cut -d' ' -f1)
[ -z "$written" ] || [ "$seen" = "$written" ] || exit 9

nginx -q -t -e stderr -c "$conf"
old=$(taking | tr '\n' ' ')
kill -HUP 1

tries=0
while now=$(taking | tr '\n' ' '); [ -z "$now" ] || [ -n "$(both "$old" "$now")" ]; do
  tries=$((tries + 1))
  if [ "$tries" -gt "$limit" ]; then
    echo "the old workers still serve after $((limit / 50)) s: nginx kept its old configuration" >&2
    exit 1
  fi
  sleep 0.02
done

# An idle connection may bring one more request to an old worker for keepalive_min_timeout.
tries=0
while left=$(finishing); [ "$left" -gt 0 ] && [ "$tries" -lt 20 ]; do
  tries=$((tries + 1))
  sleep 0.02
done
size=$(stat -c %s "$evidence" 2> /dev/null) || size=0
echo "$left $size"
