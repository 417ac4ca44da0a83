"""A run's model as ONNX, with its preprocessing recorded, checked against the model itself."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headstart.config.plain import read_config
from headstart.errors import ConfigError, RecordError
from headstart.records.atomic import write_with
from headstart.records.store import CONFIG, read_record
from headstart.resolve import spec_of
from headstart.trained.load import load_run

TOLERANCE = 1e-4
_OUTPUTS = {
    "multilabel": "class scores before the sigmoid",
    "binary": "score of the second class before the sigmoid",
    "regression": "numbers in the data's own units",
}
CHECKED = 4
"""Random images that both models are asked about, in batches of this size and of one."""


@dataclass(frozen=True)
class Exported:
    """What was written, and how far its scores are from the model's own."""

    path: Path
    largest_difference: float
    bytes: int


def check_export(path: Path) -> None:
    """Raise ConfigError where the packages are missing, or the file cannot be written."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f'export --to onnx: needs {error.name or "onnx"}: pip install "headstart[onnx]".'
        ) from error
    if path.suffix.lower() != ".onnx":
        raise ConfigError(f"--output {path}: must end in .onnx.")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--output {path}: there is no folder {path.parent}.")


def export_onnx(folder: Path, path: Path) -> Exported:
    """Write the model of a run to `path`, whole or not at all; `image` (n, channels, height, width) -> `scores`.

    n is free. The file's metadata says how an image is brought to the input, the class names and the threshold.
    Raises RecordError where the exported model's scores differ from the model's own by more than 1e-4 in float32
    (of the largest score where that is above 1; numbers: of their standard deviation), or it cannot be exported.
    """
    check_export(path)
    model, _ = load_run(folder)
    images = _images(folder)
    expected = model(images).detach()
    program = _program(model, images, folder)
    written: dict[str, float] = {}

    def write(temporary: Path) -> None:
        import onnx

        onnx.save(program, str(temporary))
        written["difference"] = largest_difference(temporary, images, expected) / _scale(folder, expected)
        if not written["difference"] <= TOLERANCE:
            raise RecordError(
                f"{folder}: the exported model's scores differ by {written['difference']:.2g} from its own, more "
                f"than {TOLERANCE:g}; nothing was written."
            )

    write_with(path, write)
    return Exported(path, written["difference"], path.stat().st_size)


def largest_difference(path: Path, images: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference of scores, over the batch and over its first image alone."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found = []
    for part in (slice(None), slice(0, 1)):
        (scores,) = session.run(["scores"], {"image": images[part].numpy()})
        found.append(float((torch.from_numpy(scores) - expected[part]).abs().max()))
    return max(found)


def preprocessing_of(folder: Path) -> dict[str, Any]:
    """How an image is brought to the model's input, in order, and what its outputs are called."""
    record, config = read_record(folder), read_config(folder / CONFIG)
    spec = spec_of(config)
    return {
        "run": record.id,
        "task": record.data.get("task"),
        "class_names": record.data.get("class_names"),
        "size": list(spec.size),
        "interpolation": spec.interpolation,
        "crop_pct": spec.crop_pct,
        "crop_mode": spec.crop_mode,
        "channels": config.data.channels,
        "pixels": "divided by 255",
        "mean": list(spec.mean),
        "std": list(spec.std),
        "transform": (record.data.get("transform") or {}).get("eval"),
        "outputs": _OUTPUTS.get(str(record.data.get("task")), "class scores before softmax"),
        **({} if record.threshold is None else {"threshold": record.threshold}),
    }


def _scale(folder: Path, scores: torch.Tensor) -> float:
    """What the scores are measured in: the smallest standard deviation of numbers in the data's own units.

    Of classes 1, or the largest score where that is more: float32 knows scores no better than by a share of it.
    """
    spread = read_record(folder).data.get("target_std")
    return min(map(float, spread)) if spread else max(1.0, float(scores.abs().max()))


def _images(folder: Path) -> torch.Tensor:
    config = read_config(folder / CONFIG)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(CHECKED, config.data.channels, *spec_of(config).size, generator=generator)


def _program(model: torch.nn.Module, images: torch.Tensor, folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        try:
            program = torch.onnx.export(
                model,
                (images,),
                input_names=["image"],
                output_names=["scores"],
                dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
                dynamo=True,
                verbose=False,
            )
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise RecordError(f"{folder}: its model cannot be exported ({reason}).") from error
    assert program is not None
    proto = program.model_proto
    for key, value in {"preprocessing": json.dumps(preprocessing_of(folder)), "producer": "headstart"}.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    return proto
