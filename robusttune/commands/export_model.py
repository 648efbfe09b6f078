"""The command ``export``: write a tuned model as ONNX, as a standalone folder, or under published names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robusttune.checkpoint_file import checkpoint_path
from robusttune.commands.export_published import write_published
from robusttune.commands.plain_parser import PlainParser
from robusttune.commands.quiet import quiet
from robusttune.errors import RobustTuneError
from robusttune.inference import Predictor, load
from robusttune.inference.onnx.precision import PRECISIONS, measure
from robusttune.paths import user_path
from robusttune.terminal import print_line

FORMATS = ("standalone", "onnx", "published")
MEGABYTE = 1e6


def run(args: list[str]) -> None:
    """Run the command.

    Args:
        args: Arguments of the command line after ``export``.

    Raises:
        RobustTuneError: The model cannot be loaded, ``--out`` exists, or the model has no such format.
    """
    given = _parser().parse_args(args)
    if given.format not in FORMATS:
        raise RobustTuneError(f"there is no format {given.format!r}: choose from {', '.join(FORMATS)}")
    if given.format != "onnx" and (given.precision != "float32" or given.input is not None):
        raise RobustTuneError(f"--precision and --input belong to --format onnx, not {given.format}: leave them out")
    out = user_path(given.out)
    if given.format == "published":
        write_published(checkpoint_path(given.ckpt_path), out)
    elif given.format == "standalone":
        with quiet():
            load(given.ckpt_path).save_pretrained(out)
        print_line(f"A standalone model of {_size(out)} was written to {out}")
    else:
        _write_onnx(given.ckpt_path, out, given.precision, given.input)


def _parser() -> PlainParser:
    parser = PlainParser(prog="robusttune export", description="Write a tuned model in another format.")
    parser.add_argument("--ckpt_path", required=True, help="The folder of a run, a checkpoint, or a standalone folder.")
    parser.add_argument("--format", required=True, help=f"One of {', '.join(FORMATS)}.")
    parser.add_argument("--out", required=True, help="The folder to write; for published, the file.")
    precision = f"Of ONNX: {', '.join(PRECISIONS)}; the latter two report what they change."
    parser.add_argument("--precision", default="float32", help=precision)
    parser.add_argument("--input", help="A table of labelled samples, to measure an ONNX model's accuracy and speed.")
    return parser


def _write_onnx(path: str, out: Path, precision: str, table: str | None) -> None:
    from robusttune.inference.onnx import write_onnx
    from robusttune.inference.onnx.folder import require_packages

    require_packages()
    with quiet():
        predictor: Predictor = load(path)
    if len(predictor.classifiers) > 1:
        raise RobustTuneError("several models are averaged, and a graph holds one: export each of them by itself")
    report: dict[str, Any] = write_onnx(predictor.classifiers[0], out, precision)
    for pattern, difference in report["difference"].items():
        print_line(f"Greatest difference of a probability, modalities {pattern}: {difference:.1e}")
    if table is not None:
        found = measure(predictor.classifiers[0], out / "model.onnx", table)
        print_line(
            f"On {found.samples} samples: accuracy {found.accuracy:.4f} (live {found.live_accuracy:.4f}), greatest "
            f"difference {found.difference:.1e}, {1e3 * found.seconds:.2f} ms a sample "
            f"(live {1e3 * found.live_seconds:.2f} ms)"
        )
    print_line(f"An ONNX model in {precision} of {_size(out)} was written to {out}")


def _size(folder: Path) -> str:
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{total / MEGABYTE:,.1f} MB"
