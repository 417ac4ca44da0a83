"""Export a run's model, with its preprocessing, checked to give the same outputs."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run, and to what."""
    parser.add_argument("run", type=Path, help="folder of a completed run")
    parser.add_argument("--to", choices=("onnx",), default="onnx", help="needs headstart[onnx]")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: model.onnx in the run's folder")


def run(arguments: argparse.Namespace) -> int:
    """Write the model and say how far its outputs are from the run's own."""
    from headstart.trained.onnx_export import export_onnx
    from headstart.trained.predict import check_kept

    check_kept(arguments.run)
    exported = export_onnx(arguments.run, arguments.output or arguments.run / "model.onnx")
    print(f"{exported.path} ({exported.bytes / 1e6:.1f} MB)")
    print(f"largest difference of a score from the model's own: {exported.largest_difference:.2g}")
    return 0
