"""Write the run folder of one upstream's traffic, which `lab judge` reads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..evidence import access_log, folder
from ..evidence.access_log import Hit
from ..evidence.folder import Evidence
from ..experiment.collect import fresh_folder
from ..nginxconf.block import block
from ..nginxconf.model import Upstream


def write_run_folder(
    upstream: Upstream,
    hits: Sequence[Hit],
    *,
    traffic: str,
    sequential: bool,
    fresh: bool,
    addresses: Mapping[str, Sequence[str]],
    files: Mapping[str, bytes],
    trace: Sequence[bytes] = (),
) -> Path:
    """Write a run folder: the claim, the config files, and the hits as nginx's log.

    The user's nginx writes no log that the lab can read: the hits are made from the records of the
    client and of the stub backends. The journal holds the stub backends' view of the same requests.
    """
    entries = [
        {"id": hit.request_id, "backend": hit.upstream_addr[-1], "status": hit.status}
        for hit in hits
    ]
    evidence = Evidence(
        kind="verify",
        method=upstream.label,
        traffic=traffic,
        sequential=sequential,
        sent=len(hits),
        addresses={
            endpoint: name for name, endpoints in addresses.items() for endpoint in endpoints
        },
        claim=block(upstream),
        configuration="".join(
            f"# configuration file {path}:\n{content.decode(errors='replace')}\n"
            for path, content in files.items()
            if path.endswith((".conf", ".inc"))
        ),
        access=b"".join(access_log.line(hit) for hit in hits),
        journal="".join(json.dumps(entry) + "\n" for entry in entries).encode(),
        trace=b"".join(line + b"\n" for line in trace),
        notes={"fresh": fresh, "upstream": upstream.name},
    )
    place = fresh_folder(f"verify-{''.join(c if c.isalnum() else '_' for c in upstream.name)}")
    folder.write(evidence, place)
    return place
