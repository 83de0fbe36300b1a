"""Read an nginx config: upstreams, routes, variables, methods."""
