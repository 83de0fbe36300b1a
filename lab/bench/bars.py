"""The bounds that `lab bench --check` compares with: ratios of one run, and seconds of CPU."""

from . import commands, predicting
from .figures import Bar

BARS = (
    Bar("requests/s of the ceiling", "GET / c=10", 0.85, most=False),
    Bar("requests/s of the ceiling", "GET / c=10 -k", 0.75, most=False),
    Bar("requests/s of the ceiling", "POST /chat c=50", 0.85, most=False),
    Bar("requests/s of the ceiling", "POST /chat c=50 -k", 0.75, most=False),
    Bar("p99 of the ceiling's", "GET / c=10", 2.0),
    Bar("p99 of the ceiling's", "GET / c=10 -k", 2.0),
    Bar("p99 of the ceiling's", "POST /chat c=50", 2.0),
    Bar("p99 of the ceiling's", "POST /chat c=50 -k", 2.0),
    Bar("CPU of a command", "lab --help", 0.25),
    Bar("CPU of a command", "lab split of 10 lines", 0.25),
    Bar("time of a command", commands.SWITCH, 0.3),
    Bar("time of awk's pipeline", "lab split, article's format", 1.0),
    *(
        Bar(f"CPU for 1,000,000 requests, {servers} servers", method, seconds)
        for servers, seconds in ((3, 4.0), (100, 8.0))
        for method in predicting.NAMES
    ),
    *(
        # ln 1000 / ln 100
        Bar("CPU of 1,000 servers by that of 100", method, 1.5)
        for method in predicting.NAMES
    ),
    *(Bar("CPU to judge 100,000 hits", method, 5.0) for method in predicting.NAMES),
    Bar("lateness p99", "2,000 requests/s", 0.010),
)
