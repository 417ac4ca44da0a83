"""A Hugging Face dataset: a hub name, or a local folder of Parquet, images or a saved dataset."""

from __future__ import annotations

import os.path
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.config.paths import expanded
from headstart.data.huggingface_labels import label_targets
from headstart.data.pictures import open_picture
from headstart.data.source import Examples, Picture, Source
from headstart.errors import DataError, did_you_mean
from headstart.network import hub_endpoint, offline, reachable

_SPLITS = {
    "train": ("train", "training"),
    "val": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}
_LABELS = ("label", "labels", "fine_label", "class", "target", "targets", "category")


class RowExamples:
    """Rows of one split; ids are `<split>/<row>`."""

    def __init__(self, rows: Any, split: str, image_column: str, targets: npt.NDArray[Any], path: str) -> None:
        self.rows = rows
        self.split = split
        self.image_column = image_column
        self.targets = targets
        self.path = path
        self.encoded = not _is_array(rows.features[image_column])
        self.ids = [f"{split}/{i:06d}" for i in range(len(rows))]

    def _cell(self, index: int) -> Any:
        return self.rows[int(index)][self.image_column]

    def content(self, index: int) -> bytes:
        """The encoded file, or the raw array with its shape."""
        cell = self._cell(index)
        if cell is None:
            raise ValueError("there is no image in this row")
        if self.encoded:
            return cell["bytes"] if cell.get("bytes") is not None else self._file(str(cell["path"])).read_bytes()
        array = _array(cell)
        return repr(array.shape).encode() + array.tobytes()

    def _file(self, name: str) -> Path:
        """A file that a cell only names; one that is not the dataset's own is nobody else's to have read."""
        import datasets
        from huggingface_hub import constants

        own = expanded(self.path)
        roots = [own] if own.is_dir() else []
        roots += [
            Path(cache)
            for cache in (
                datasets.config.HF_CACHE_HOME,
                datasets.config.HF_DATASETS_CACHE,
                datasets.config.EXTRACTED_DATASETS_PATH,
                constants.HF_HUB_CACHE,
            )
        ]
        # as it is said, for the hub's cache is full of links; the folder itself may be a link
        file = Path(os.path.abspath(name))  # noqa: PTH100
        allowed = {place for root in roots for place in (Path(os.path.abspath(root)), root.resolve())}  # noqa: PTH100
        if file.exists() and not file.is_file():
            raise ValueError(f"names no file but a folder, pipe or device ({name})")
        if not any(file.is_relative_to(root) for root in allowed):
            raise ValueError(
                f"names a file outside the dataset ({name}); save it with the images in it, as to_parquet does"
            )
        return file

    def image(self, index: int) -> Picture:
        """The decoded cell."""
        cell = self._cell(index)
        return _array(cell) if not self.encoded else open_picture(self.content(index))

    def where(self, index: int) -> str:
        """Split and row."""
        return f"{self.path}, {self.split}, row {index}"


def huggingface(
    path: str,
    *,
    subset: str | None,
    image_column: str | None,
    label_column: str | Sequence[str] | None,
    group_column: str | None,
    task: str,
) -> Source:
    """Open a dataset.

    Raises DataError where it is not there, the hub is out of reach, or its columns are not what is needed.
    """
    found = _load(path, subset)
    splits = {ours: found[name] for ours, names in _SPLITS.items() for name in names if name in found}
    if "train" not in splits:
        if len(found) != 1:
            raise DataError(f"data.path={path}: has no train split; it has {', '.join(map(str, found))}.")
        splits = {"train": next(iter(found.values()))}
    features = splits["train"].features
    image_name = image_column or _image_column(features, path)
    labels = label_column or _label_column(features, path, image_name)
    label_names = [labels] if isinstance(labels, str) else list(labels)
    named = [("image_column", image_name), *(("label_column", name) for name in label_names)]
    for key, name in (*named, *([("group_column", group_column)] if group_column else [])):
        if name not in features:
            hint = did_you_mean(name, features) or f" It has {', '.join(features)}."
            raise DataError(f"data.{key}={name}: there is no such column.{hint}")
    names, kind, targets = label_targets(splits, label_names, task=task, path=path)
    examples: dict[str, Examples] = {}
    groups: dict[str, list[str]] = {}
    for split, rows in splits.items():
        examples[split] = RowExamples(_undecoded(rows, image_name), split, image_name, targets[split], path)
        if group_column:
            groups[split] = _groups(rows[group_column], f"{path}, {split}, {group_column}")
    return Source(tuple(names), kind, examples, groups)


def _groups(column: Any, where: str) -> list[str]:
    values = list(column)
    for row, value in enumerate(values):
        if value is None or isinstance(value, list | dict):
            raise DataError(f"{where}, row {row}: names no group.")
    return [str(value) for value in values]


def _load(path: str, subset: str | None) -> dict[str, Any]:
    import datasets
    from tqdm import tqdm

    datasets.disable_progress_bars()
    # or each bar, even a silent one, makes a semaphore that a sweep's job leaves behind, with a warning at the end
    tqdm.set_lock(threading.RLock())
    folder = expanded(path)
    if folder.is_dir() and not any(folder.iterdir()):
        raise DataError(f"data.path={path}: the folder is empty.")
    if not folder.is_dir() and (path.startswith((".", "/", "~")) or path.count("/") > 1):
        raise DataError(f"data.path={path}: there is no such folder.")
    try:
        if folder.is_dir() and ((folder / "dataset_dict.json").exists() or (folder / "state.json").exists()):
            loaded = datasets.load_from_disk(str(folder))
        elif folder.is_dir():
            loaded = datasets.load_dataset(str(folder), subset)
        else:
            if not offline() and not reachable(hub_endpoint()):
                raise DataError(
                    f"data.path={path}: no such folder, and the hub {hub_endpoint()} cannot be reached from here."
                )
            loaded = datasets.load_dataset(path, subset)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"data.path={path}: cannot be read as a dataset ({reason[:300]}).") from error
    except datasets.exceptions.DatasetsError as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"data.path={path}: cannot be read as a dataset ({reason[:300]}).") from error
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def _image_column(features: Any, path: str) -> str:
    import datasets

    kinds = (datasets.Image, datasets.Array2D, datasets.Array3D)
    found = [name for name, feature in features.items() if isinstance(feature, kinds)]
    if len(found) != 1:
        have = ", ".join(features)
        what = "several image columns" if found else "no image column"
        raise DataError(f"data.path={path}: has {what} (columns: {have}); set data.image_column.")
    return found[0]


def _label_column(features: Any, path: str, image_name: str) -> str:
    import datasets

    for name in _LABELS:
        if name in features:
            return name
    labels = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    if len(labels) == 1:
        return labels[0]
    others = ", ".join(name for name in features if name != image_name)
    raise DataError(f"data.path={path}: which column has the labels? Set data.label_column (columns: {others}).")


def _is_array(feature: Any) -> bool:
    import datasets

    return not isinstance(feature, datasets.Image)


def _undecoded(rows: Any, image_name: str) -> Any:
    import datasets

    rows = rows.select_columns([image_name])
    if isinstance(rows.features[image_name], datasets.Image):
        rows = rows.cast_column(image_name, datasets.Image(decode=False))
    return rows


def _array(cell: Any) -> npt.NDArray[np.uint8]:
    """A cell of numbers as (height, width, channels); channels first is told by the smaller outer axis."""
    array = np.asarray(cell)
    if array.ndim not in (2, 3) or array.dtype.kind not in "iuf":
        raise ValueError(f"is no image: {array.ndim} axes of {array.dtype}")
    if array.dtype != np.uint8:
        if array.min(initial=0) < 0 or array.max(initial=0) > 255:
            raise ValueError("its values are not between 0 and 255")
        array = np.rint(array).astype(np.uint8)
    if array.ndim == 3 and array.shape[0] < min(array.shape[1:]):
        array = array.transpose(1, 2, 0)
    return np.ascontiguousarray(array)
