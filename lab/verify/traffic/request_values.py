"""Give a request the values with which a variable or a condition gets the one wanted."""

import re
from collections.abc import Iterator

from msgspec import structs

from ...nginxconf.maps import pattern
from ...nginxconf.request import FRAMING, Request
from ...nginxconf.tree import Directive
from ...nginxconf.variables import Variables
from .assignments import Assignment, Definitions, assignments
from .locations import encoded
from .sample import NO_GROUPS, sample, sampled

BODY = b'{"model": "lab", "messages": [{"role": "user", "content": "hello"}]}'


def with_variable(request: Request, name: str, value: str) -> Request | None:
    """The request with a value for one of nginx's variables; None if no client can set it."""
    if name.startswith("arg_"):
        path, _, query = request.uri.partition("?")
        return structs.replace(request, uri=f"{path}?{with_pair(query, '&', name[4:], value)}")
    if name.startswith("cookie_"):
        cookies = with_pair(request.headers.get("Cookie", ""), "; ", name[7:], value)
        return with_header(request, "Cookie", cookies)
    if name.startswith("http_") and name not in FRAMING:
        return with_header(request, header_name(name), value)
    if name in ("host", "content_type"):
        return with_header(request, {"host": "Host", "content_type": "Content-Type"}[name], value)
    if name == "request_method":
        return structs.replace(request, method=value, body=BODY if value == "POST" else b"")
    if name == "request_body":
        return structs.replace(request, method="POST", body=value.encode())
    if name in ("uri", "document_uri", "request_uri") and value.startswith("/"):
        return structs.replace(request, uri=value)
    if name in ("args", "query_string"):
        return structs.replace(request, uri=f"{request.uri.partition('?')[0]}?{value}")
    return None


def with_pair(pairs: str, separator: str, name: str, value: str) -> str:
    """Arguments or cookies with one of that name: nginx reads the first."""
    others = [pair for pair in pairs.split(separator) if pair]
    kept = [pair for pair in others if pair.partition("=")[0].lower() != name.lower()]
    return separator.join([*kept, f"{name}={value}"])


def header_name(name: str) -> str:
    """The header of a variable: "X-Api-Key" for "http_x_api_key"."""
    return "-".join(word.capitalize() for word in name.removeprefix("http_").split("_"))


def with_variables(request: Request, values: Assignment) -> Request | None:
    """The request with those of the values that a client can set; None if it can set none."""
    changed: Request | None = None
    for name, value in values.items():
        with_value = with_variable(request if changed is None else changed, name, value)
        changed = changed if with_value is None else with_value
    return changed


def with_header(request: Request, name: str, value: str) -> Request:
    """The request with a header."""
    return structs.replace(request, headers={**request.headers, name: value})


def satisfying(
    request: Request, condition: Directive, conf: Variables, captures: Assignment = NO_GROUPS
) -> Request | None:
    """The request changed so that an `if` holds, as far as can be told; None if no client can.

    `captures` are wanted texts of the captures of its regex.
    """
    test = test_of(condition)
    if test is None or test[1].startswith("!"):
        return request
    for text in values_for(*test, conf, captures):
        for values in assignments(f"${test[0]}", text, Definitions(conf.definitions)):
            if (changed := with_variables(request, values)) is not None:
                return changed
    return request if test[0] in conf.definitions else None


def values_for(
    name: str, sign: str, value: str, conf: Variables, captures: Assignment = NO_GROUPS
) -> list[str]:
    """Values of a variable for which a test holds; for a map those that it can have."""
    block = conf.definitions.get(name)
    if block is None:
        return [sampled(value, captures, ignore_case="*" in sign) if "~" in sign else value]
    results = [line.args[-1] for line in block.block or () if line.args]
    if "~" in sign:
        regex = pattern(value, ignore_case="*" in sign, where=block.where)
        return [result for result in results if regex.search(encoded(result))]
    return [value] if sign else [result for result in results if result not in ("", "0")]


def test_of(condition: Directive) -> tuple[str, str, str] | None:
    """The variable, the sign and the value of an `if`: a lone variable is to be "1"."""
    text = " ".join(condition.args).removeprefix("(").removesuffix(")").strip()
    match = re.fullmatch(r"\$(\w+)(?:\s*(!?=|!?~\*?)\s*(.*))?", text)
    if match is None:
        return None
    value = "1" if match[2] is None else match[3].strip("\"'")
    return match[1].lower(), match[2] or "", value


def avoiding(request: Request, condition: Directive, conf: Variables) -> Request:
    """The request changed so that an `if` that refuses does not hold, as far as can be told.

    This is how keys are asked for: by the header itself, or by a map of it.
    """
    test = test_of(condition)
    for values in contrary_assignments(*test, conf) if test else ():
        if (changed := with_variables(request, values)) is not None:
            return changed
    return request


def contrary_assignments(name: str, sign: str, value: str, conf: Variables) -> Iterator[Assignment]:
    """Values of variables for which a test does not hold."""
    block = conf.definitions.get(name)
    if sign.startswith("!"):
        values = [sample(value, ignore_case="*" in sign) if "~" in sign else value]
    elif block is not None:
        results = [line.args[-1] for line in block.block or () if line.args]
        values = [result for result in results if result != value] if sign else ["0", ""]
    else:
        values = ["lab"] if (sign, value) == ("=", "") else []
    for text in values:
        yield from assignments(f"${name}", text, Definitions(conf.definitions))


def allowed(request: Request, limit: Directive) -> Request:
    """The request by a method for which the block of `limit_except` holds."""
    method = next(
        (method for method in ("POST", "GET", "PUT") if method not in limit.args), "DELETE"
    )
    return structs.replace(request, method=method, body=BODY if method == "POST" else b"")
