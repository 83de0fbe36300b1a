#!/bin/sh
# Compare nginx's files with what nginx loaded. Prints the SHA-256 of active/upstream.conf, then
# each configuration file that changed after the workers that take requests started.
# Runs inside the nginx container.
set -eu

lab=/etc/nginx/lab
sha256sum < "$lab/active/upstream.conf" | cut -d' ' -f1

worker=$(grep -lzx '[n]ginx: worker process' /proc/[0-9]*/cmdline 2> /dev/null | head -n 1 | cut -d/ -f3)
boot=$(awk '/^btime/ { print $2 }' /proc/stat)
ticks=$(awk '{ print $22 }' "/proc/$worker/stat")
loaded=$((boot + ticks / $(getconf CLK_TCK) + 1))    # a second later: both clocks are rounded
cd "$lab" && find . -name '*.conf' -newermt "@$loaded" | sed 's|^\./||' | sort
