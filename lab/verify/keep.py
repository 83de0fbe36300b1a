"""Keep what one upstream's traffic showed as a run folder: `lab judge` reads it as any other."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..evidence import access_log, folder
from ..evidence.access_log import Hit
from ..evidence.folder import Evidence
from ..experiment.collect import fresh_folder
from ..nginxconf.block import block
from ..nginxconf.model import Upstream


def keep(
    upstream: Upstream,
    hits: Sequence[Hit],
    *,
    traffic: str,
    sequential: bool,
    fresh: bool,
    addresses: Mapping[str, Sequence[str]],
    files: Mapping[str, bytes],
) -> Path:
    """Write the folder: the claim, the configuration's files, and the hits as nginx's log.

    The user's nginx writes no log that the lab can read; the hits are what callers and stand-ins
    saw, in nginx's words. The journal holds what the stand-ins say of the same requests.
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
        addresses={door: name for name, doors in addresses.items() for door in doors},
        claim=block(upstream),
        configuration="".join(
            f"# configuration file {path}:\n{content.decode(errors='replace')}\n"
            for path, content in files.items()
            if path.endswith((".conf", ".inc"))
        ),
        access=b"".join(access_log.line(hit) for hit in hits),
        journal="".join(json.dumps(entry) + "\n" for entry in entries).encode(),
        notes={"fresh": fresh, "upstream": upstream.name},
    )
    place = fresh_folder(f"verify-{''.join(c if c.isalnum() else '_' for c in upstream.name)}")
    folder.write(evidence, place)
    return place
