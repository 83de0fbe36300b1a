"""A hundred nginx configurations of the shapes that people publish, written anew for these tests.

Each has the verdicts that `lab verify` must give; `REFUSED` where nginx itself does not start.
The user's machine knows the hosts HOSTS, and has the files PLACE beside those of the repository.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

HOSTS = (
    *("gpu-1", "gpu-2", "gpu-3", "vllm-1", "vllm-2", "vllm0", "vllm1", "ollama", "grafana"),
    *("tgi-0.tgi.ml.svc", "tgi-1.tgi.ml.svc", "auth", "shadow", "web", "redis"),
)
TWO = "server gpu-1:8000; server gpu-2:8000;"
ZONED = f"zone llm 64k; {TWO}"
PASS, UNSURE, REFUSED = "PASS", "UNSURE", "REFUSED"


@dataclass(frozen=True, slots=True)
class Shape:
    """A config, the files beside it, and the word that `lab verify` must end with."""

    text: str
    word: str = PASS
    files: Mapping[str, str] = field(default_factory=dict)


def whole(http: str, main: str = "") -> str:
    """A file with which nginx starts."""
    return f"{main}\nevents {{ worker_connections 256; }}\nhttp {{\n{http}\n}}\n"


def llm(
    upstream: str = ZONED,
    location: str = "proxy_pass http://llm;",
    server: str = "listen 80;",
    http: str = "",
    main: str = "",
) -> str:
    """The usual file: one upstream, one server, one location."""
    return whole(
        f"{http}\nupstream llm {{ {upstream} }}\n"
        f"server {{ {server}\n location / {{ {location} }} }}",
        main,
    )


METHODS = {
    "round robin": ZONED,
    "round robin without a zone": TWO,
    "weights": "zone llm 64k; server gpu-1:8000 weight=3; server gpu-2:8000;",
    "odd weights without a zone": "server gpu-1:8000 weight=5; server gpu-2:8000 weight=2;",
    "least_conn": f"least_conn; {ZONED}",
    "least_conn with weights": "zone llm 64k; least_conn; server gpu-1:80 weight=2; server gpu-2:80;",
    "ip_hash": f"ip_hash; {ZONED}",
    "ip_hash with a server down": "ip_hash; server gpu-1:80; server gpu-2:80 down; server gpu-3:80;",
    "hash of the URI": f"hash $request_uri; {ZONED}",
    "consistent hash of the URI": f"hash $request_uri consistent; {ZONED}",
    "consistent hash of a header": f"hash $http_x_session consistent; {ZONED}",
    "hash of a cookie": f"hash $cookie_session; {ZONED}",
    "hash of the user": f"hash $remote_user; {ZONED}",
    "hash of an argument": f"hash $arg_user consistent; {ZONED}",
    "hash of the address": f"hash $remote_addr consistent; {ZONED}",
    "hash of two variables": f"hash $http_authorization$uri consistent; {ZONED}",
    "random": f"random; {ZONED}",
    "random two": f"random two least_conn; {ZONED}",
    "least_time": f"least_time header; {ZONED}",
    "sticky cookie": f"{ZONED} sticky cookie srv expires=1h path=/;",
    "sticky route": (
        "zone llm 64k; server gpu-1:80 route=a; server gpu-2:80 route=b; sticky route $arg_route;"
    ),
    "backup": f"{ZONED} server gpu-3:8000 backup;",
    "a server down": f"{ZONED} server gpu-3:8000 down;",
    "max_fails and fail_timeout": (
        "least_conn; server vllm0:8000 max_fails=3 fail_timeout=10000s;"
        " server vllm1:8000 max_fails=3 fail_timeout=10000s;"
    ),
    "max_conns": "zone llm 64k; server gpu-1:80 max_conns=50; server gpu-2:80 max_conns=50;",
    "keepalive": f"{ZONED} keepalive 32; keepalive_timeout 60s;",
    "one server": "server ollama:11434;",
    "loopback ports": "server 127.0.0.1:8001; server 127.0.0.1:8002; server 127.0.0.1:8003;",
    "localhost ports": "server localhost:8001; server localhost:8002;",
    "private addresses": "server 10.0.0.11:8000; server 10.0.0.12:8000;",
    "IPv6 addresses": "server [fd00::11]:8000; server [fd00::12]:8000;",
    "names of a cluster": "server tgi-0.tgi.ml.svc:80; server tgi-1.tgi.ml.svc:80;",
    "the default port": "server gpu-1; server gpu-2;",
    "a drained server": "zone llm 64k; server gpu-1:80; server gpu-2:80; server gpu-3:80 drain;",
    "a method behind the servers": f"{ZONED} ip_hash;",
}

LOCATIONS = {
    "a path is dropped": "proxy_pass http://llm/;",
    "a path is put in front": "proxy_pass http://llm/api/;",
    "the request's own URI": "proxy_pass http://llm$request_uri;",
    "the request's own scheme": "proxy_pass $scheme://llm;",
    "URI and arguments": "proxy_pass http://llm$uri$is_args$args;",
    "set names the upstream": "set $pool llm; proxy_pass http://$pool;",
    "streaming": (
        "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_buffering off;"
        " proxy_read_timeout 600s; proxy_pass http://llm;"
    ),
    "websockets": (
        "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;"
        " proxy_set_header Connection upgrade; proxy_pass http://llm;"
    ),
    "no retries": "proxy_next_upstream off; proxy_pass http://llm;",
    "retries on errors": (
        "proxy_next_upstream error timeout http_502 http_503 non_idempotent;"
        " proxy_next_upstream_tries 2; proxy_pass http://llm;"
    ),
    "POST alone": "limit_except POST { deny all; } proxy_pass http://llm;",
    "an API key": 'if ($http_authorization != "Bearer secret") { return 401; } proxy_pass http://llm;',
    "CORS": (
        "if ($request_method = OPTIONS) { return 204; }"
        " add_header Access-Control-Allow-Origin *; proxy_pass http://llm;"
    ),
    "a password": (
        "auth_basic fleet; auth_basic_user_file /etc/nginx/htpasswd; proxy_pass http://llm;"
    ),
    "a fallback": "try_files $uri @app; } location @app { proxy_pass http://llm;",
    "by regex": "return 404; } location ~ ^/v1/(chat|completions) { proxy_pass http://llm;",
    "nested": "return 404; location /v1/ { proxy_pass http://llm; }",
    "a mirror": (
        "mirror /copy; proxy_pass http://llm; }"
        " location = /copy { internal; proxy_pass http://127.0.0.1:9999;"
    ),
    "an error page of its own": (
        "error_page 502 503 504 = @sorry; proxy_pass http://llm; }"
        " location @sorry { default_type text/plain; return 503 busy;"
    ),
}

SERVERS = {
    "no listen": "server_name example.org;",
    "a high port": "listen 8080;",
    "IPv6 too": "listen 80; listen [::]:80;",
    "loopback": "listen 127.0.0.1:8000;",
    "a default server": "listen 80 default_server; server_name _;",
    "several names": "listen 80; server_name api.example.org *.example.org;",
    "a name by regex": "listen 80; server_name ~^(?<tenant>.+)\\.example\\.org$;",
    "the port of the backends": "listen 8000;",
    "proxy protocol": "listen 80 proxy_protocol;",
    "a limit of bodies": "listen 80; client_max_body_size 50m;",
}

HTTP = {
    "gzip and a log": (
        "include mime.types; gzip on; log_format up '$remote_addr $upstream_addr';"
        " access_log /var/log/nginx/up.log up;"
    ),
    "a limit of requests": "limit_req_zone $binary_remote_addr zone=one:1m rate=1000r/s;",
    "a map for upgrades": "map $http_upgrade $connection_upgrade { default upgrade; '' close; }",
    "real addresses": "set_real_ip_from 10.0.0.0/8; real_ip_header X-Forwarded-For;",
}

KEYS = {
    "a session, else the address": (
        "map $http_x_session $who { default $http_x_session; '' $remote_addr; }",
        PASS,
    ),
    "a session, else the request": (
        "map $http_x_session $who { default $http_x_session; '' $request_id; }",
        PASS,
    ),
    "a time": ("map $msec $who { default $msec; }", UNSURE),
}

SPECIAL = {
    "a user and a pid": Shape(llm(main="user nginx; worker_processes auto; pid /run/nginx.pid;")),
    "an error log": Shape(llm(main="error_log /var/log/nginx/error.log warn;")),
    "several servers of one upstream": Shape(
        whole(
            f"upstream llm {{ {ZONED} }} server {{ listen 80; server_name a;"
            " location / { proxy_pass http://llm; } } server { listen 80; server_name b;"
            " location / { proxy_pass http://llm; } }"
        )
    ),
    "models by path": Shape(
        whole(
            f"upstream chat {{ {ZONED.replace('llm', 'chat')} }} upstream embed {{ server gpu-3:80; }}"
            " server { listen 80; location /chat { proxy_pass http://chat; }"
            " location /embed { proxy_pass http://embed; } }"
        )
    ),
    "models by header": Shape(
        whole(
            "map $http_x_model $pool { default small; large large; }"
            " upstream small { zone s 64k; server gpu-1:80; server gpu-2:80; }"
            " upstream large { zone l 64k; server gpu-3:80; server vllm-1:80; }"
            " server { listen 80; location / { proxy_pass http://$pool; } }"
        )
    ),
    "a canary": Shape(
        whole(
            "split_clients $remote_addr $pool { 10% next; * now; }"
            " upstream now { zone n 64k; server gpu-1:80; server gpu-2:80; }"
            " upstream next { server gpu-3:80; }"
            " server { listen 80; location / { proxy_pass http://$pool; } }"
        )
    ),
    "TLS": Shape(
        llm(
            server="listen 443 ssl; server_name api.example.org;"
            " ssl_certificate /etc/ssl/fleet.pem; ssl_certificate_key /etc/ssl/fleet.pem;"
        )
    ),
    "a redirect to TLS": Shape(
        whole(
            f"upstream llm {{ {ZONED} }} server {{ listen 80; return 301 https://$host$request_uri; }}"
            " server { listen 443 ssl; ssl_certificate /etc/ssl/fleet.pem;"
            " ssl_certificate_key /etc/ssl/fleet.pem; location / { proxy_pass http://llm; } }"
        )
    ),
    "a site alone": Shape(
        f"upstream llm {{ {ZONED} }} server {{ listen 80; location / {{ proxy_pass http://llm; }} }}"
    ),
    "sites in conf.d": Shape(
        whole("include /etc/nginx/conf.d/*.conf;"),
        files={
            "conf.d/llm.conf": f"upstream llm {{ {ZONED} }}\n"
            "server { listen 80; location / { proxy_pass http://llm; } }\n"
        },
    ),
    "an upstream in a file of its own": Shape(
        whole(
            "include upstreams/gpu.conf; server { listen 80; location / { proxy_pass http://llm; } }"
        ),
        files={"upstreams/gpu.conf": f"upstream llm {{ {ZONED} }}\n"},
    ),
    "conf.d is empty": Shape(llm(http="include /etc/nginx/conf.d/*.conf;")),
    "parameters for other services": Shape(
        llm(http="include mime.types; types_hash_max_size 2048;")
    ),
    "an address without a block": Shape(
        whole("server { listen 80; location / { proxy_pass http://127.0.0.1:11434; } }")
    ),
    "localhost without a block": Shape(
        whole("server { listen 80; location / { proxy_pass http://localhost:11434; } }")
    ),
    "auth_request": Shape(
        whole(
            f"upstream llm {{ {ZONED} }} server {{ listen 80;"
            " location / { auth_request /auth; proxy_pass http://llm; }"
            " location = /auth { internal; proxy_pass http://127.0.0.1:9000/check; } }"
        )
    ),
    "a down server that is nginx": Shape(
        llm("zone llm 64k; server gpu-1:80; server 127.0.0.1:80 down;")
    ),
    "two methods": Shape(llm(f"least_conn; ip_hash; {ZONED}")),
    "two servers of one name": Shape(
        whole(
            f"upstream llm {{ {ZONED} }} server {{ listen 80; server_name a;"
            " location / { proxy_pass http://llm; } } server { listen 80; server_name a; return 204; }"
        )
    ),
    "a stream beside": Shape(
        llm() + "stream { upstream redis { server redis:6379; }"
        " server { listen 6379; proxy_pass redis; } }\n"
    ),
    "names that are resolved as nginx runs": Shape(
        llm(
            "zone llm 64k; resolver 127.0.0.11 valid=5s;"
            " server gpu-1:80 resolve; server gpu-2:80 resolve;"
        )
    ),
    "a host without a block": Shape(
        whole("server { listen 80; location / { proxy_pass http://ollama:11434; } }"), UNSURE
    ),
    "a dashboard beside": Shape(
        whole(
            f"upstream llm {{ {ZONED} }} server {{ listen 80; location / {{ proxy_pass http://llm; }}"
            " location /grafana/ { proxy_pass http://grafana:3000; } }"
        ),
        UNSURE,
    ),
    "a host in a variable": Shape(
        whole(
            "resolver 127.0.0.11; server { listen 80; set $to ollama:11434;"
            " location / { proxy_pass http://$to; } }"
        ),
        UNSURE,
    ),
    "a unix socket": Shape(llm("server unix:/run/llm.sock; server unix:/run/other.sock;")),
    "nginx as its own backend": Shape(
        llm(
            "server 127.0.0.1:8081; server 127.0.0.1:8082;",
            http="server { listen 8081; return 200 a; } server { listen 8082; return 200 b; }",
        )
    ),
    "models by argument": Shape(
        whole(
            "upstream small { zone s 64k; server gpu-1:80; server gpu-2:80; }"
            " upstream large { zone l 64k; server gpu-3:80; server vllm-1:80; }"
            " server { listen 80; location / { proxy_pass http://$arg_model; } }"
        )
    ),
    "both ports in one server, and TLS alone served": Shape(
        llm(
            server="listen 80; listen 443 ssl; ssl_certificate /etc/ssl/fleet.pem;"
            " ssl_certificate_key /etc/ssl/fleet.pem; server_name api.example.org;"
            " if ($scheme = http) { return 301 https://$host:443$request_uri; }"
        )
    ),
    "a status as a jump to a named location": Shape(
        llm(location="error_page 418 = @llm; return 418; } location @llm { proxy_pass http://llm;")
    ),
    "an njs module beside": Shape(
        llm(
            http="js_path njs; js_import keys from keys.js; js_set $tenant keys.tenant;",
            location="proxy_set_header X-Tenant $tenant; proxy_pass http://llm;",
        ),
        files={"njs/keys.js": "function tenant(r) { return r.uri; }\nexport default { tenant };\n"},
    ),
    "nothing to balance": Shape(whole("server { listen 80; return 204; }"), UNSURE),
    "everybody is sent away": Shape(llm(location="deny all; proxy_pass http://llm;"), UNSURE),
}

# nginx does not start with any of these on the user's machine
WRONG = {
    "a typing error in the upstream's name": llm(location="proxy_pass http://llms;"),
    "a typing error behind a path": llm(location="proxy_pass http://lln/v1/;"),
    "a missing include": llm(http="include upstreams/gpu.conf;"),
    "the upstream is in a missing include": whole(
        "include gpu.conf; server { listen 80; location / { proxy_pass http://llm; } }"
    ),
    "the upstream is in an empty folder": whole(
        "include conf.d/*.conf; server { listen 80; location / { proxy_pass http://llm; } }"
    ),
    "a site without its upstream": "server { listen 80; location / { proxy_pass http://backend; } }",
    "an unknown directive": llm(location="proxy_pas http://llm;"),
    "a missing semicolon": llm(location="proxy_pass http://llm"),
    "a missing brace": llm()[:-3],
    "an upstream without servers": llm("zone llm 64k;"),
    "only backups": llm("server gpu-1:80 backup;"),
    "a weight of nothing": llm("server gpu-1:80 weight=0;"),
    "backup with ip_hash": llm("ip_hash; server gpu-1:80; server gpu-2:80 backup;"),
    "a commercial parameter": llm("server gpu-1:80 slow_start=30s; server gpu-2:80;"),
    "a commercial directive": llm(f"{ZONED} queue 10;"),
    "an unknown parameter": llm("hash $uri consistant; server gpu-1:80;"),
    "two upstreams of one name": llm(http="upstream llm { server gpu-3:80; }"),
    "a port on an upstream": llm(location="proxy_pass http://llm:8000;"),
    "a zone that is too small": llm(f"zone llm 8k; {TWO}"),
    "resolve without a zone": llm("server gpu-1:80 resolve;"),
    "no scheme": llm(location="proxy_pass llm;"),
    "an unknown variable": llm(f"hash $tenants consistent; {ZONED}"),
    "a path behind a regex": llm(
        location="return 404; } location ~ ^/v1 { proxy_pass http://llm/v1/;"
    ),
    "a host of another service": llm(
        location="proxy_pass http://llm; } location /rpc { grpc_pass grpc://typo:50051;"
    ),
    "a template that was not filled in": llm("server ${GPU_1}:8000; server ${GPU_2}:8000;"),
    "a port that was not filled in": llm(server="listen ${PORT};"),
    "a module that is not installed": llm(main="load_module modules/ngx_http_geoip2_module.so;"),
    "a log format that is not there": llm(http="access_log /var/log/nginx/a.log missing;"),
}


def shapes() -> dict[str, Shape]:
    """Every shape by its name."""
    by_name = {f"method: {name}": Shape(llm(lines)) for name, lines in METHODS.items()}
    by_name |= {f"location: {name}": Shape(llm(location=text)) for name, text in LOCATIONS.items()}
    by_name |= {f"server: {name}": Shape(llm(server=lines)) for name, lines in SERVERS.items()}
    by_name |= {f"http: {name}": Shape(llm(http=lines)) for name, lines in HTTP.items()}
    by_name |= {
        f"key: {name}": Shape(llm(f"hash $who consistent; {ZONED}", http=lines), word)
        for name, (lines, word) in KEYS.items()
    }
    by_name |= SPECIAL
    by_name |= {f"wrong: {name}": Shape(text, REFUSED) for name, text in WRONG.items()}
    return by_name
