"""OpenStack Swift with its S3 API, one replica on one disk: a store that is run in production.

Unlike Ceph it checks `x-amz-checksum-*` and chunked trailers; it has no policies, and its conditions are not atomic.
"""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Iterator
from pathlib import Path

from tests.servers.base import Daemons, S3Server, emptied, program

KINDS = ("account", "container", "object")
USER = ("test:tester", "testing")
OTHER = ("test:other", "testing2")  # of the same account, for buckets belong to accounts here; not its administrator

# One partition, one replica, one device each. What swift-ring-builder writes too, but it takes nine runs for that.
RINGS = """\
import sys
from swift.common.ring import RingBuilder
folder = sys.argv[1]
for kind, port in (argument.split("=") for argument in sys.argv[2:]):
    builder = RingBuilder(1, 1, 1)
    builder.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "disk", "weight": 1.0})
    builder.rebalance()
    builder.get_ring().save(f"{folder}/{kind}.ring.gz")
"""

DEFAULT = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
disable_fallocate = true
fallocate_reserve = 0
workers = 0
eventlet_debug = false
log_level = WARNING
"""

STORE = """\
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""

PROXY = f"""\
[pipeline:main]
pipeline = catch_errors gatekeeper listing_formats s3api tempauth bulk slo dlo copy proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
max_upload_part_num = 10000
[filter:slo]
use = egg:swift#slo
max_manifest_segments = 10000
[filter:tempauth]
use = egg:swift#tempauth
user_{USER[0].replace(":", "_")} = {USER[1]} .admin
user_{OTHER[0].replace(":", "_")} = {OTHER[1]}
"""

FILTERS = ("catch_errors", "gatekeeper", "listing_formats", "bulk", "dlo", "copy")


@contextlib.contextmanager
def swift(folder: Path) -> Iterator[S3Server]:
    """A store while the block lasts; `folder` is its own, on a disk with extended attributes. Raises Missing."""
    programs = [program(f"swift-{kind}-server") for kind in (*KINDS, "proxy")]
    with emptied(folder), Daemons(folder) as daemons:
        ports = {kind: daemons.port() for kind in (*KINDS, "proxy")}
        (folder / "devices" / "disk").mkdir(parents=True)
        (folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = tests\n")
        for kind, port in ports.items():
            default = DEFAULT.format(port=port, user=getpass.getuser(), folder=folder)
            filters = "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in FILTERS)
            rest = PROXY + filters if kind == "proxy" else STORE.format(kind=kind)
            (folder / f"{kind}.conf").write_text(default + rest)
        *stores, front = zip(ports, programs, strict=True)
        for kind, server in stores:
            daemons.start(kind, server, folder / f"{kind}.conf", "-v")
        daemons.run(program("python"), "-c", RINGS, folder, *(f"{kind}={ports[kind]}" for kind in KINDS))
        # A proxy that meets a store not yet there leaves it alone for a minute.
        daemons.wait(*(f"http://127.0.0.1:{ports[kind]}" for kind in KINDS))
        daemons.start(front[0], front[1], folder / f"{front[0]}.conf", "-v")
        endpoint = f"http://127.0.0.1:{ports['proxy']}"
        daemons.wait(endpoint)
        yield S3Server("swift", endpoint, *USER, other=OTHER)
