"""A Ceph cluster in memory with two S3 gateways, one of them with TLS: a store that is run in production.

One monitor, one OSD without a disk, no manager. It checks signatures, expiry, ACLs, policies and Content-MD5; it
ignores `x-amz-checksum-*`, and refuses the chunked trailers that boto3 sends over TLS unless it is told not to.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import shutil
import struct
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.servers.base import Daemons, Missing, S3Server, emptied
from tests.website import write_certificate

PROGRAMS = ("radosgw", "radosgw-admin", "ceph-osd", "ceph-mon", "ceph", "monmaptool")
USER = ("AKIDTEST", "SECRETTEST")
OTHER = ("AKIDOTHER", "SECRETOTHER")

CAPABILITIES = {
    "mon.": ("mon",),
    "client.admin": ("mon", "mgr", "osd"),
    "client.rgw": ("mon", "osd"),
    "osd.0": ("mon", "mgr", "osd"),
}

# The lines on paxos make the first start quick: without them it takes 14 s. Those on gc free the memory of what was
# deleted or replaced at once, and not after two hours.
CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{monitor}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {folder}/keyring
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 1
paxos propose interval = .05
paxos min wait = .01
run dir = {folder}
crash dir = {folder}
admin socket =
pid file =
log file =
log to stderr = true
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
[osd.0]
osd objectstore = memstore
memstore device bytes = 6442450944
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{plain} ssl_endpoint=127.0.0.1:{tls} ssl_certificate={certificate} \
ssl_private_key={key}
rgw gc obj min wait = 1
rgw gc processor period = 2
rgw gc max objs = 1
"""


@dataclass(frozen=True)
class Ceph:
    """The two gateways of one cluster: the same users, buckets and objects."""

    plain: S3Server
    tls: S3Server


@contextlib.contextmanager
def ceph(folder: Path) -> Iterator[Ceph]:
    """A cluster while the block lasts; `folder` is its own, and is removed. Raises Missing."""
    if not all(shutil.which(name) for name in PROGRAMS):
        raise Missing("needs radosgw, ceph-osd and ceph-mon: `make servers`")
    with emptied(folder), Daemons(folder) as daemons:
        yield _started(folder, daemons)


def _started(folder: Path, daemons: Daemons) -> Ceph:
    monitor, plain, tls = daemons.port(), daemons.port(), daemons.port()
    certificate, key = write_certificate(folder, "127.0.0.1")
    fsid, osd, configuration = str(uuid.uuid4()), str(uuid.uuid4()), folder / "ceph.conf"
    (folder / "osd").mkdir()
    (folder / "keyring").write_text(_keyring())
    configuration.write_text(
        CONFIGURATION.format(
            fsid=fsid, monitor=monitor, folder=folder, plain=plain, tls=tls, certificate=certificate, key=key
        )
    )
    of = ("-c", configuration)
    map_, keyring = folder / "monmap", folder / "keyring"
    daemons.run("monmaptool", "--create", "--addv", "a", f"[v2:127.0.0.1:{monitor}]", "--fsid", fsid, map_)
    daemons.run("ceph-mon", *of, "--mkfs", "-i", "a", "--monmap", map_, "--keyring", keyring)
    daemons.start("mon", "ceph-mon", *of, "-f", "-i", "a")
    daemons.run("ceph", *of, "osd", "new", osd)
    daemons.run("ceph-osd", *of, "--mkfs", "-i", "0", "--osd-uuid", osd)
    daemons.run("ceph", *of, "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=localhost")
    daemons.start("osd", "ceph-osd", *of, "-f", "-i", "0")
    daemons.start("rgw", "radosgw", *of, "-f", "-n", "client.rgw")
    addresses = f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{tls}"
    daemons.wait(*addresses)
    for name, (access, secret) in {"test": USER, "other": OTHER}.items():
        daemons.run(
            "radosgw-admin", *of, "-n", "client.rgw", "user", "create", f"--uid={name}", f"--display-name={name}",
            f"--access-key={access}", f"--secret-key={secret}",
        )  # fmt: skip
    return Ceph(
        S3Server("ceph", addresses[0], *USER, other=OTHER),
        S3Server("ceph over TLS", addresses[1], *USER, certificate, OTHER),
    )


def _keyring() -> str:
    """A key for each of the cluster's parts, as ceph-authtool makes it: the key's kind, when it was made, 16 bytes."""
    lines = []
    for name, parts in CAPABILITIES.items():
        key = struct.pack("<HIIH", 1, int(time.time()), 0, 16) + secrets.token_bytes(16)
        lines += [f"[{name}]", f"key = {base64.b64encode(key).decode()}"]
        lines += [f'caps {part} = "allow *"' for part in parts]
    return "\n".join(lines) + "\n"
