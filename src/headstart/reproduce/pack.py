"""Packing a run into a bundle: what its reader needs, and nothing that is nobody's business."""

from __future__ import annotations

import hashlib
import json
import shlex
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from headstart.config.plain import read_config, to_plain
from headstart.config.schema.weights import FileConfig, RunConfig
from headstart.errors import RecordError
from headstart.records.atomic import plain_json, write_with
from headstart.records.examples import EXAMPLES
from headstart.records.schema import RunRecord, result_of
from headstart.records.store import CONFIG, RECORD, read_record
from headstart.records.tables import METRICS, PREDICTIONS
from headstart.redaction import redact, redacted
from headstart.reproduce.bundle import FORMAT, MANIFEST, START, VERSION, check_bundle, start_name
from headstart.reproduce.requirements import requirements_of

Which = Literal["none", "tested", "all"]
"""Of the final weights: none, those that were tested, or the last ones as well."""
README, REQUIREMENTS, PATCH = "README.md", "requirements.txt", "code.patch"
_TIME = (1980, 1, 1, 0, 0, 0)
"""The same run makes the same bundle."""


@dataclass(frozen=True)
class _Part:
    """A file of a bundle: text, or a file from elsewhere."""

    name: str
    text: str | None = None
    path: Path | None = None

    def chunks(self) -> Iterator[bytes]:
        """Its content."""
        if self.text is not None:
            yield self.text.encode()
        if self.path is not None:
            with self.path.open("rb") as file:
                while chunk := file.read(2**20):
                    yield chunk


def pack(folder: Path, target: Path, *, weights: Which = "tested", start: bool = False) -> list[tuple[str, int]]:
    """Write a run's bundle to `target`, whole or not at all; returns name and size in bytes of each file in it.

    With `start` the weights that it started from come along, where they are a file or another run: published
    ones are named by their digest. Raises RecordError where the run did not complete, or has not the weights.
    """
    record = read_record(folder)
    if record.status != "completed":
        raise RecordError(
            f"{folder}: this run ({record.status}) has no result to pack; `headstart resume {folder}` finishes it."
        )
    parts = list(_parts(folder, record, weights=weights, start=start))
    files = {}
    for part in parts:
        digest, size = hashlib.sha256(), 0
        for chunk in part.chunks():
            digest.update(chunk)
            size += len(chunk)
        files[part.name] = {"sha256": digest.hexdigest(), "size": size}
    manifest = {"format": FORMAT, "version": VERSION, "run": record.id, "files": files}
    parts.append(_Part(MANIFEST, json.dumps(manifest, indent=1)))

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w") as archive:
            for part in parts:
                info = zipfile.ZipInfo(part.name, date_time=_TIME)
                info.external_attr = 0o100644 << 16
                # weights do not get smaller
                info.compress_type = zipfile.ZIP_STORED if _holds_weights(part.name) else zipfile.ZIP_DEFLATED
                with archive.open(info, "w", force_zip64=True) as file:
                    for chunk in part.chunks():
                        file.write(chunk)
        check_bundle(temporary)

    write_with(target, write)
    return [(name, int(entry["size"])) for name, entry in files.items()]  # type: ignore[call-overload]


def _holds_weights(name: str) -> bool:
    return name.startswith(("checkpoints/", f"{START}/"))


def _parts(folder: Path, record: RunRecord, *, weights: Which, start: bool) -> Iterator[_Part]:
    plain = redacted(plain_json(record.to_dict()))
    yield _Part(RECORD, json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    config = read_config(folder / CONFIG)
    yield _Part(CONFIG, yaml.safe_dump(redacted(to_plain(config)), sort_keys=False, allow_unicode=True))
    further = sorted(path.name for path in folder.glob("predictions-*.parquet"))
    for name in (METRICS, PREDICTIONS, EXAMPLES, *further):
        if (folder / name).is_file():
            yield _Part(name, path=folder / name)
    if (folder / PATCH).is_file():
        yield _Part(PATCH, redact((folder / PATCH).read_text(encoding="utf-8", errors="replace"), code=True))
    yield _Part(REQUIREMENTS, requirements_of(record.environment))
    yield _Part(README, _readme(record))
    yield from _final_weights(folder, config.trainer.checkpoint, weights)
    if start and isinstance(config.weights, FileConfig | RunConfig):
        yield from _start_weights(Path(config.weights.path), is_run=isinstance(config.weights, RunConfig))


def _final_weights(folder: Path, tested: str, which: Which) -> Iterator[_Part]:
    wanted = {"none": [], "tested": [tested], "all": sorted({tested, "last"})}[which]
    for name in wanted:
        path = folder / "checkpoints" / f"{name}.safetensors"
        if not path.is_file():
            raise RecordError(f"{folder}: kept no weights ({path.name}); pack it with --weights none.")
        yield _Part(f"checkpoints/{path.name}", path=path)
    frozen = folder / "checkpoints" / "frozen.safetensors"
    if wanted and frozen.is_file():
        yield _Part(f"checkpoints/{frozen.name}", path=frozen)


def _start_weights(path: Path, *, is_run: bool) -> Iterator[_Part]:
    if not path.exists():
        raise RecordError(f"weights.path={path}: is not there any more; pack it without --start.")
    if not is_run:
        yield _Part(start_name(path), path=path)
        return
    record = read_record(path)
    yield _Part(f"{START}/{RECORD}", json.dumps(redacted(plain_json(record.to_dict())), allow_nan=False))
    tested = record.config["trainer"].get("checkpoint", "best")
    for name in (tested, "frozen"):
        file = path / "checkpoints" / f"{name}.safetensors"
        if name == tested or file.is_file():
            yield _Part(f"{START}/checkpoints/{file.name}", path=file)


def _readme(record: RunRecord) -> str:
    """What whoever unpacks it should know: what came out, the exact command, and how to have it again."""
    environment, data = record.environment, record.data
    packages = environment.get("packages") or {}
    source = record.weights.get("name") or record.weights.get("source")
    return redact(
        "\n".join(
            [
                f"# {record.id}",
                "",
                f"{result_of(record)}, seed {record.seed}, on {environment.get('gpu') or environment.get('cpu')}.",
                "",
                "It was made by",
                "",
                f"    {shlex.join(record.command)}",
                "",
                f"with headstart {packages.get('headstart', '?')}"
                + (f" (commit {environment['git_commit']})" if environment.get("git_commit") else "")
                + ". `requirements.txt` has the other versions, `config.yaml` every option, resolved.",
                "",
                "To have it again, unpacked or not:",
                "",
                "    headstart reproduce BUNDLE.zip data.path=WHERE_THE_IMAGES_ARE",
                "",
                f"Data: {data.get('source')}, fingerprint {data.get('fingerprint')}.",
                f"Weights at the start: {source}, SHA-256 {record.weights.get('file_sha256')}.",
                "",
            ]
        )
    )
