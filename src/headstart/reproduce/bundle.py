"""A run in one file that another person unpacks and reproduces; every file in it has its checksum."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.errors import RecordError
from headstart.records.store import RECORD

MANIFEST = "manifest.json"
FORMAT = "headstart bundle"
VERSION = 1
START = "start"
"""Folder of the weights that a run started from."""
WEIGHTS = "weights"

MOST_FILES = 100
LARGEST_TEXT = 256 * 2**20
"""Bytes of a file of text."""
LARGEST = 64 * 2**30
"""Bytes of all files together."""
MOST_RATIO = 100
"""Bytes that a packed byte may become, in files that are not small."""
_SMALL = 4 * 2**20
_CHUNK = 2**20

_TEXTS = (".json", ".yaml", ".csv", ".md", ".txt", ".patch")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,120}")


@dataclass(frozen=True)
class _Entry:
    sha256: str
    size: int


def start_name(path: Path) -> str:
    """How a file of weights is called in a bundle; of its name the ending says what it is."""
    ending = path.suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,16}", path.suffix) else ""
    return f"{START}/{WEIGHTS}{ending}"


def is_bundle(path: Path) -> bool:
    """Whether a file is a ZIP archive at all; `unpack` says whether it is a bundle."""
    try:
        return zipfile.is_zipfile(path)
    except OSError:
        return False


def check_bundle(path: Path) -> None:
    """Raise RecordError where `unpack` would refuse a bundle for what it lists."""
    with zipfile.ZipFile(path) as archive:
        _check(archive, path)


def unpack(path: Path, *, into: Path) -> Path:
    """Unpack a bundle into a new folder below `into`, named after its run; returns that folder.

    Everything is checked before the folder is there: names, sizes, checksums. Nothing is written outside `into`.
    A bundle that has been unpacked there before is found again. Raises RecordError that says what is wrong.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries, run = _check(archive, path)
            into.mkdir(parents=True, exist_ok=True)
            room = sum(entry.size for entry in entries.values())
            if shutil.disk_usage(into).free < room:
                raise RecordError(f"{path}: takes {room:,} bytes, which {into} has no room for.")
            target = into / run
            if _is_there(target, entries):
                return target
            holding = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=into))
            try:
                for name, entry in entries.items():
                    _extract(archive, name, entry, holding / name, path)
                return _put(holding, target)
            finally:
                shutil.rmtree(holding, ignore_errors=True)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, KeyError) as error:
        raise RecordError(f"{path}: is damaged ({_reason(error)}).") from error
    except (UnicodeDecodeError, zipfile.LargeZipFile, MemoryError, zlib.error) as error:
        raise RecordError(f"{path}: is damaged ({type(error).__name__}).") from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # a place in the file that there is not
            raise
        raise RecordError(f"{path}: is damaged ({_reason(error)}).") from error


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _check(archive: zipfile.ZipFile, path: Path) -> tuple[dict[str, _Entry], str]:
    """The files that the manifest lists, and the run's name; raises RecordError for anything amiss."""
    infos = archive.infolist()
    if len(infos) > MOST_FILES:
        raise RecordError(f"{path}: has {len(infos)} files; a bundle has {MOST_FILES} at most.")
    names = [info.filename for info in infos]
    if len({name.lower() for name in names}) != len(names):
        raise RecordError(f"{path}: has two files of one name.")
    folders = {parent.lower() for name in names for parent in _parents(name)}
    if clash := next((name for name in names if name.lower() in folders), None):
        raise RecordError(f"{path}: {clash} is a file and a folder.")
    for info in infos:
        _check_entry(info, path)
    if MANIFEST not in names:
        raise RecordError(f"{path}: is no bundle of Headstart (it has no {MANIFEST}).")
    entries, run = _read_manifest(archive, path)
    if odd := sorted(set(names) ^ {*entries, MANIFEST}):
        where = "is not in its manifest" if odd[0] in names else "is missing"
        raise RecordError(f"{path}: {odd[0]} {where}.")
    if RECORD not in entries:
        raise RecordError(f"{path}: has no {RECORD}.")
    for info in infos:
        if info.filename != MANIFEST and info.file_size != entries[info.filename].size:
            raise RecordError(f"{path}: {info.filename} has another size than its manifest says.")
    if sum(entry.size for entry in entries.values()) > LARGEST:
        raise RecordError(f"{path}: holds more than {LARGEST // 2**30} GiB.")
    return entries, run


def _parents(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]


def _check_entry(info: zipfile.ZipInfo, path: Path) -> None:
    name = info.filename
    parts = name.split("/")
    if len(parts) > 3 or not all(_NAME.fullmatch(part) for part in parts):
        raise RecordError(f"{path}: has a file with a name that no bundle has ({name[:80]!r}).")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise RecordError(f"{path}: {name} is no ordinary file; links and devices are refused.")
    if info.flag_bits & 0x1:
        raise RecordError(f"{path}: {name} is encrypted.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # the others give out as much as they like at once
        raise RecordError(f"{path}: {name} is packed in a way that no bundle is.")
    if info.file_size > LARGEST_TEXT and name.endswith(_TEXTS):
        raise RecordError(f"{path}: {name} has {info.file_size:,} bytes, more than such a file can have.")
    if info.file_size > _SMALL and info.file_size > MOST_RATIO * max(1, info.compress_size):
        raise RecordError(
            f"{path}: {name} would grow {info.file_size // max(1, info.compress_size)}-fold; refused."
        )


def _read_manifest(archive: zipfile.ZipFile, path: Path) -> tuple[dict[str, _Entry], str]:
    with archive.open(MANIFEST) as file:
        text = file.read(_SMALL + 1)
    if len(text) > _SMALL:
        raise RecordError(f"{path}: its {MANIFEST} is too large.")
    try:
        value: Any = json.loads(text)
        if value["format"] != FORMAT:
            raise RecordError(f"{path}: is no bundle of Headstart.")
        if value["version"] != VERSION:
            raise RecordError(
                f"{path}: is of version {str(value['version'])[:20]}; this Headstart reads {VERSION}: upgrade it."
            )
        run = value["run"]
        if not isinstance(run, str) or not _NAME.fullmatch(run):
            raise RecordError(f"{path}: its {MANIFEST} names no run.")
        entries = {}
        for name, entry in value["files"].items():
            if not isinstance(entry["size"], int) or entry["size"] < 0 or not isinstance(entry["sha256"], str):
                raise TypeError(name)
            entries[name] = _Entry(entry["sha256"], entry["size"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecordError(f"{path}: its {MANIFEST} is damaged ({type(error).__name__}).") from error
    return entries, run


def _extract(archive: zipfile.ZipFile, name: str, entry: _Entry, target: Path, path: Path) -> None:
    """Write one file, no more of it than the manifest says, and compare its checksum."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), entry.size
    try:
        with archive.open(name) as source, target.open("xb") as written:
            while chunk := source.read(min(_CHUNK, left + 1)):
                left -= len(chunk)
                if left < 0:
                    break
                digest.update(chunk)
                written.write(chunk)
    except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError, NotImplementedError) as error:
        raise RecordError(f"{path}: {name} is damaged ({_reason(error)}).") from error
    except Exception as error:
        if type(error).__module__ in ("zlib", "lzma", "_lzma", "bz2"):
            raise RecordError(f"{path}: {name} is damaged ({_reason(error)}).") from error
        raise
    if left or digest.hexdigest() != entry.sha256:
        raise RecordError(f"{path}: {name} is not what its checksum says; the bundle was damaged or changed.")


def _is_there(target: Path, entries: dict[str, _Entry]) -> bool:
    """Whether the same bundle has been unpacked there already, and has not been changed since."""
    if not target.is_dir():
        return False
    for name, entry in entries.items():
        file = target / name
        if not file.is_file() or file.stat().st_size != entry.size:
            return False
        with file.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != entry.sha256:
                return False
    return True


def _put(holding: Path, target: Path) -> Path:
    """Move a whole folder to its place, or to one beside it where that is taken; returns where it is."""
    holding.chmod(0o755)
    for count in range(1, 1000):
        place = target if count == 1 else target.with_name(f"{target.name}-{count}")
        if place.exists():
            continue
        try:
            return holding.rename(place)
        except OSError:
            if not place.exists():
                raise
    raise RecordError(f"{target}: is there a thousand times already.")
