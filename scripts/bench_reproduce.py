"""Whether each strategy comes out the same twice, in processes of their own, and what determinism costs."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from bench_rows import machine

VIT_ONLY = ("lora", "adapter", "visual_prompts")
"""Strategies that are measured on the second backbone: they are made for Transformers."""
NEEDED = {
    "groups": ["strategy.groups=[head]"],
    "gradual": ["strategy.milestones=[1]"],
    "phases": ["strategy.phases=[{start:0,groups:[head]},{start:1,groups:[stem,head]}]"],
}
"""Options without which a strategy is none."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is trained, and how much of it."""
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--vit", default="vit_tiny_patch16_224", help="the backbone of Transformers' ways")
    parser.add_argument("--images", type=int, default=256, help="training images")
    parser.add_argument("--precision", default="auto", help="as trainer.precision")
    parser.add_argument("--size", type=int, default=96, help="pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--rounds", type=int, default=5)


def run(words: argparse.Namespace) -> int:
    """Exit status 1 where a deterministic run did not come out the same."""
    same = reproduce(
        backbone=words.backbone,
        vit=words.vit,
        size=words.size,
        batch=words.batch,
        images=words.images,
        device=words.device,
        precision=words.precision,
        rounds=words.rounds,
        path=words.json,
    )
    return 0 if same else 1


def reproduce(
    *,
    backbone: str,
    vit: str,
    size: int,
    batch: int,
    images: int,
    device: str,
    precision: str,
    rounds: int,
    path: Path | None,
) -> bool:
    """Train each strategy in every round, with and without `trainer.deterministic`; returns whether all agree.

    Each round is a process of its own, in which strategies and settings take turns. The table says whether the
    predictions and the final weights of all rounds are the same, and seconds of training with determinism by those
    without.
    """
    from headstart.config.schema.strategy import OPTIONS

    words = {
        name: [
            f"strategy={name}",
            *NEEDED.get(name, []),
            f"backbone.name={vit if name in VIT_ONLY else backbone}",
            "weights=scratch",
            "data=digits",
            f"data.image_size={size}",
            f"data.batch_size={batch}",
            f"data.train_size={images}",
            "data.test_size=200",
            "data.augment=light",
            "head.dropout=0.3",
            f"trainer.accelerator={device}",
            f"trainer.precision={precision}",
            "trainer.max_epochs=2",
            "trainer.progress=none",
            "logger=none",
        ]
        for name in sorted(OPTIONS)
    }
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["headstart.experiment"])
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in words}
    for i in range(rounds):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_train_all, args=(words, theirs))
        process.start()
        theirs.close()
        for name in words:
            try:
                found[name].append(ours.recv())
            except EOFError:
                found[name].append({"error": "the process died"})
            print(f"round {i + 1}/{rounds}  {name:<16} {_short(found[name][-1])}", flush=True)
        process.join()
    rows = [_row(name, results) for name, results in found.items()]
    setting = f"{backbone} and {vit}, {images} images of {size} pixels, batches of {batch}, 2 epochs"
    print(f"\n{machine(device)}; {setting}, {rounds} rounds\n")
    print("| strategy | deterministic=true | without | times as long, lowest to highest |")
    print("|---|---|---|---|")
    for row in rows:
        print(f"| {row['strategy']} | {row['true']} | {row['false']} | {row['cost']} |")
    if path:
        path.write_text(json.dumps({"machine": machine(device), "rows": rows}, indent=1))
    return all(row["true"] == "identical" for row in rows)


def _short(result: dict[str, Any]) -> str:
    """What came out, so that an interrupted benchmark has said something."""
    if "error" in result:
        return str(result["error"])
    return "  ".join(
        f"deterministic={setting} {str(one['digests'][0])[:8]} {one['seconds']:.2f} s"
        for setting, one in result.items()
    )


def _row(name: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    errors = [one["error"] for one in found if "error" in one]
    if errors:
        return {"strategy": name, "true": errors[0], "false": "", "cost": ""}
    verdicts = {}
    for setting in ("true", "false"):
        results = [one[setting]["digests"] for one in found]
        same = all(result == results[0] for result in results)
        spread = max(one[setting]["log_loss"] for one in found) - min(one[setting]["log_loss"] for one in found)
        verdicts[setting] = "identical" if same else f"differs, log loss by {spread:.2g}"
    ratios = [one["true"]["seconds"] / one["false"]["seconds"] for one in found]
    cost = f"{statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
    return {"strategy": name, **verdicts, "cost": cost}


def _train_all(words: dict[str, list[str]], pipe: Any) -> None:
    """In a process of its own: every strategy, after one run that counts for nothing."""
    with tempfile.TemporaryDirectory() as folder:
        _train(next(iter(words.values())), folder)
        for own in words.values():
            pipe.send(_train(own, folder))


def _train(words: list[str], folder: str) -> dict[str, Any]:
    """Both settings of one strategy: digests of what came out, and seconds of training."""
    from headstart.config.compose import compose
    from headstart.experiment import run

    found: dict[str, Any] = {}
    try:
        for setting in ("true", "false"):
            config = compose([*words, f"trainer.deterministic={setting}", f"output_dir={folder}"])
            _, record = run(config, command=["bench"])
            found[setting] = {
                "digests": [record.predictions_sha256, dict(sorted(record.final_weights.items()))],
                "log_loss": record.metrics["test/log_loss"],
                "seconds": record.seconds["fit"],
            }
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return {"error": f"{type(error).__name__}: {error}"}
    return found
