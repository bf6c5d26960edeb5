from types import SimpleNamespace

import pytest

from trainvitals.store import filesystems
from trainvitals.store.filesystems import network_type


def mounted(monkeypatch, **kinds):
    parts = [SimpleNamespace(mountpoint=at, fstype=kind) for at, kind in kinds.items()]
    monkeypatch.setattr(filesystems.psutil, "disk_partitions", lambda all: parts)


@pytest.mark.parametrize(
    ("kind", "is_network"),
    [("ext4", False), ("xfs", False), ("apfs", False), ("overlay", False), ("tmpfs", False), ("nfs4", True),
     ("NFS", True), ("cifs", True), ("fuse.sshfs", True), ("lustre", True), ("9p", True), ("fuse.bindfs", False)],
)  # fmt: skip
def test_kinds_of_file_systems_are_told_apart(monkeypatch, tmp_path, kind, is_network):
    mounted(monkeypatch, **{"/": "ext4", str(tmp_path): kind})
    assert network_type(tmp_path / "not" / "there") == (kind.lower() if is_network else None)


def test_the_nearest_mount_counts_and_links_are_followed(monkeypatch, tmp_path):
    (tmp_path / "share").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "share")
    mounted(monkeypatch, **{"/": "nfs", str(tmp_path): "ext4", str(tmp_path / "share"): "nfs4"})
    assert network_type(tmp_path) is None
    assert network_type(tmp_path / "link" / "runs") == "nfs4"


def test_the_temporary_folder_here_is_local(tmp_path):
    assert network_type(tmp_path) is None
