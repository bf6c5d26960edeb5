"""What kind of file system a folder is on: SQLite is not safe on one that several machines share."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

# Names as the system gives them; sqlite.org/useovernet.html says why. FUSE file systems are named fuse.NAME.
NETWORK = frozenset({
    "nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afpfs", "afs", "9p", "lustre", "gpfs", "ceph", "beegfs",
    "beegfs_nodev", "glusterfs", "pvfs2", "orangefs", "panfs", "davfs", "webdav", "wekafs", "quobyte", "juicefs",
    "sshfs", "s3fs", "gcsfuse", "rclone", "goofys", "blobfuse", "blobfuse2", "mfs", "moosefs",
})  # fmt: skip


def network_type(folder: Path) -> str | None:
    """Return the name of the network file system that a folder is on, or None on a local one.

    The folder need not exist: the nearest one above it counts.
    """
    target = os.path.realpath(folder)
    mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    while target not in mounts:
        above = os.path.dirname(target)
        if above == target:
            return None
        target = above
    kind = mounts[target].lower()
    name = kind.removeprefix("fuse.").removeprefix("fuseblk.")
    return kind if name in NETWORK else None
