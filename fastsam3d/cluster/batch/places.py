"""Folders to read from and to write to: on this machine, or at an address that fsspec knows, such as `s3://bucket/x`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Protocol

from fastsam3d.basics.files import write_atomically
from fastsam3d.basics.paths import user_path
from fastsam3d.errors import UserError

SCHEME = re.compile(r"^[a-z][a-z0-9+.\-]+://")
FILE = "file://"
EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("abfs", "az"), "adlfs"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
}
"""Packages that bring fsspec the file systems of the usual stores."""


class Place(Protocol):
    """A folder. Names of its files are relative, with `/` between their parts."""

    address: str

    def files(self) -> dict[str, str]:
        """Lists all files in it and its folders: names, each with a stamp that changes with the file; {} if empty."""

    def size(self, name: str) -> int | None:
        """Returns the bytes of a file; None if there is none."""

    def read(self, name: str) -> bytes:
        """Reads a file.

        Raises:
            UserError: it is missing or cannot be read.
        """

    def write(self, name: str, data: bytes) -> None:
        """Writes a file whole or not at all.

        Raises:
            UserError: it cannot be written.
        """


def is_remote(address: str) -> bool:
    """Tells whether an address has a scheme, as `s3://bucket/x` and `memory://x` have."""
    return SCHEME.match(address) is not None and not address.startswith(FILE)


def place_of(address: str) -> Place:
    """Opens the folder at a path or an address.

    Raises:
        UserError: fsspec, or its package for the scheme, is not installed.
    """
    if is_remote(address):
        return RemoteFolder(address)
    return LocalFolder(user_path(without_file_scheme(address)))


def without_file_scheme(address: str) -> str:
    """Returns the path of an address such as `file:///home/x`; other paths and addresses as they are."""
    return address.removeprefix(FILE)


def split_address(address: str) -> tuple[str, str]:
    """Splits the path or address of a file: (the folder, the file's name)."""
    folder, _, name = address.rstrip("/").rpartition("/")
    return (folder or ("/" if address.startswith("/") else "."), name)


class LocalFolder:
    """A folder of this machine, or of a disk that all machines share."""

    def __init__(self, path: Path) -> None:
        self.path, self.address = path, str(path)

    def files(self) -> dict[str, str]:
        """See `Place`. A stamp is size and time of the last change; hidden folders are left out."""
        found = {}
        for root, folders, names in os.walk(self.path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in names:
                path = os.path.join(root, name)
                try:
                    facts = os.stat(path)
                except OSError:  # a link to nothing
                    continue
                found[os.path.relpath(path, self.path).replace(os.sep, "/")] = f"{facts.st_size}-{facts.st_mtime_ns}"
        return found

    def size(self, name: str) -> int | None:
        """See `Place`."""
        try:
            return (self.path / name).stat().st_size
        except OSError:
            return None

    def stamp(self, name: str) -> str | None:
        """See `files`; None where there is no such file."""
        try:
            facts = (self.path / name).stat()
        except OSError:
            return None
        return f"{facts.st_size}-{facts.st_mtime_ns}"

    def read(self, name: str) -> bytes:
        """See `Place`."""
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise UserError(f"{self.path / name} cannot be read ({error.strerror or error}). Check the path.") from None

    def write(self, name: str, data: bytes) -> None:
        """See `Place`."""
        write_atomically(self.path / name, data)


class RemoteFolder:
    """A folder at an address, by fsspec. Stores of objects write a file whole or not at all.

    Raises:
        UserError: fsspec, or its package for the scheme, is not installed; or the address cannot be used.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        scheme = address.partition("://")[0]
        try:
            from fsspec.core import url_to_fs

            self._system, self._root = url_to_fs(self.address)
        except ImportError as error:
            package = EXTRAS.get(scheme)
            missing = f"the package {package}, which is not installed" if package else str(error)
            raise UserError(f"{address} needs {missing}: pip install fsspec {package or ''}".rstrip() + ".") from None
        except Exception as error:  # some file systems connect here, and each has its own kinds of errors
            text = str(error)[:200] or type(error).__name__
            raise UserError(f"the address {address} cannot be used ({text}). Check it.") from None

    def files(self) -> dict[str, str]:
        """See `Place`. A stamp is size and the store's own mark of the content."""
        system: Any = self._system
        system.invalidate_cache()
        try:
            found = system.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise self._trouble("listed", "", error) from None
        start = len(self._root.rstrip("/")) + 1
        return {path[start:]: _stamp(facts) for path, facts in found.items() if len(path) > start}

    def size(self, name: str) -> int | None:
        """See `Place`."""
        self._system.invalidate_cache()
        try:
            return int(self._system.size(f"{self._root}/{name}"))
        except Exception:  # every store has its own kinds
            return None

    def read(self, name: str) -> bytes:
        """See `Place`."""
        self._system.invalidate_cache()  # of listings: another process may have written the file since
        try:
            data: bytes = self._system.cat_file(f"{self._root}/{name}")
            return data
        except FileNotFoundError:
            raise UserError(f"{self.address}/{name} does not exist. Check the address.") from None
        except Exception as error:
            raise self._trouble("read", f"/{name}", error) from None

    def write(self, name: str, data: bytes) -> None:
        """See `Place`."""
        try:
            self._system.pipe_file(f"{self._root}/{name}", data)
        except Exception as error:
            raise self._trouble("written", f"/{name}", error) from None

    def _trouble(self, what: str, name: str, error: Exception) -> UserError:
        return UserError(
            f"{self.address}{name} cannot be {what} ({type(error).__name__}: {str(error)[:200]}). Check the address "
            "and the credentials."
        )


def _stamp(facts: dict[str, Any]) -> str:
    mark = next((facts[key] for key in ("ETag", "etag", "md5Hash", "mtime", "created") if facts.get(key)), "")
    return f"{facts.get('size')}-{str(mark).strip(chr(34))}"
