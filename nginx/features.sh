#!/bin/sh
# Ask this nginx, once, when its image is built, what differs between versions and builds;
# nginx.conf includes the answers.
set -eu

# A verdict reads the debug log. The official image has a second binary that can write one.
if ! nginx -V 2>&1 | grep -q -- --with-debug && command -v nginx-debug > /dev/null; then
  ln -sf "$(command -v nginx-debug)" "$(command -v nginx)"
fi

mkdir -p /etc/nginx/features
try=/tmp/try.conf

accepts() {
  printf 'pid /tmp/try.pid; events {} http { server { listen 8999; %s } }' "$1" > "$try"
  nginx -q -t -e stderr -c "$try" 2> /dev/null
}

# Idle connections of clients outlive a reload long enough to close cleanly (1.27.4).
if accepts 'keepalive_min_timeout 300ms;'; then
  echo 'keepalive_min_timeout 300ms;' > /etc/nginx/features/http.conf
fi

if accepts 'location / { stub_status; }'; then
  echo 'stub_status;'
else
  # shellcheck disable=SC2016  # nginx's variables
  echo 'return 200 "nginx $nginx_version, worker $pid";'
fi > /etc/nginx/features/status.conf

# njs, which reads prompts exactly: built in, or a module that has to be loaded.
module=/usr/lib/nginx/modules/ngx_http_js_module.so
# shellcheck disable=SC2016  # nginx's variable
if accepts 'js_var $njs;'; then
  touch /etc/nginx/features/njs
elif [ -e "$module" ]; then
  echo "load_module $module;" > /etc/nginx/features/main.conf
  touch /etc/nginx/features/njs
fi

if [ -e /etc/nginx/features/njs ]; then
  echo 'include /etc/nginx/lab/njs/metrics.conf;' > /etc/nginx/features/door.conf
fi

rm -f "$try" /tmp/try.pid
