"""Read an nginx config into what the lab asks of it: upstreams, routes, variables, methods."""
