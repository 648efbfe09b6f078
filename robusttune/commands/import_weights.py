"""The command ``import``: convert weights that a method's published implementation has written to a checkpoint."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, StepLR

from robusttune.callbacks import SafeCheckpointIO
from robusttune.checkpoint_file import read_plain
from robusttune.commands.lightning_cli import CLIWithoutRun, launch_without_run
from robusttune.counting import counted
from robusttune.data import ImageTextDataModule
from robusttune.errors import RobustTuneError
from robusttune.models.dcp import DCPNetwork
from robusttune.models.low_rank import LowRankNetwork
from robusttune.models.published import METHODS, Matched, names_of, refuse_another_alpha
from robusttune.paths import user_path
from robusttune.terminal import print_line
from robusttune.types import Facts


class PublishedCallback:
    """A stand-in for callbacks of the Lightning that DCP and DPL were published with."""


# MMRL's trainer also saves its optimiser, its schedule and its last accuracy (a NumPy number) in the file.
MAKE_NUMBER: Any = np.float64(0).__reduce__()[0]
CALLBACKS = ("model_checkpoint.ModelCheckpoint", "lr_monitor.LearningRateMonitor", "early_stopping.EarlyStopping")
HARMLESS: list[Any] = [
    *(torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, CosineAnnealingLR, MultiStepLR, StepLR),
    *(defaultdict, dict, Counter, np.dtype),
    *(type(np.dtype(kind)) for kind in ("float32", "float64", "int64")),
    *((MAKE_NUMBER, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((PublishedCallback, f"pytorch_lightning.callbacks.{name}") for name in CALLBACKS),
]


class ImportCLI(CLIWithoutRun):
    """A command line that constructs the task of a configuration and reads the published weights, without a run."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the command's own options."""
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--published", type=str, required=True, help=f"Weights file that the published code of {METHODS} wrote."
        )
        parser.add_argument("--out", type=str, required=True, help="Checkpoint to write, a .ckpt file.")
        queries = "Seed of the queries of DCP's dynamic prompts, if the weights file lacks them."
        parser.add_argument("--queries_seed", type=int | None, default=None, help=queries)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the arguments, and read the published weights before any encoder is loaded.

        Raises:
            RobustTuneError: An argument is invalid, the output exists, or the weights cannot be read.
        """
        self.parse_settings(parser, args)
        if user_path(self.config.out).exists():
            raise RobustTuneError(f"{self.config.out} exists: give another --out")
        self.published, self.metadata = read_published(user_path(self.config.published))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Return a Trainer on the CPU that only writes a checkpoint, whatever the configuration's trainer is."""
        return Trainer(accelerator="cpu", devices=1, logger=False, plugins=[SafeCheckpointIO()])

    def checked_facts(self, data: ImageTextDataModule) -> Facts:
        """Return the facts of the data. The data are not checked, because nothing is trained."""
        return data.facts


def run(args: list[str]) -> None:
    """Run the command.

    Args:
        args: Arguments of the command line after ``import``.

    Raises:
        RobustTuneError: An argument is invalid, or the weights do not fit the configuration.
    """
    cli = launch_without_run(ImportCLI, "import", args)
    task, trainer = cli.model, cli.trainer
    out, published, classifier = user_path(cli.config.out), cli.published, task.classifier
    network: Any = getattr(classifier, "network", nn.Module())
    own = network.state_dict()
    first_layer = getattr(classifier.encoder_settings["image_encoder"], "first_layer", 1)
    names = names_of(own, f"the model of {type(task).__name__}", first_layer=first_layer)
    names.refuse_another_clip(published, classifier.image_encoder.upper, classifier.text_encoder.upper)
    matched = names.read(published, own)
    if isinstance(network, LowRankNetwork):
        refuse_another_alpha(cli.metadata, classifier.fusion.alpha)
    network.load_state_dict(matched.state)
    if matched.left:
        _draw_queries(network, cli.config.queries_seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(out)
    _print_summary(matched, out)


def _draw_queries(network: DCPNetwork, seed: int | None) -> None:
    """Draw the queries of dynamic prompts, which the published code does not store.

    Raises:
        RobustTuneError: There is no seed.
    """
    if seed is None:
        raise RobustTuneError(
            "the published checkpoint lacks the queries of the dynamic prompts, which the published code neither "
            "trains nor saves but draws at each start: add model.{image,text}_encoder.transformer.resblocks.0."
            "prompts_dynamic_{complete,image,text} to its state dict, or set --queries_seed to draw others, with which "
            "the predictions differ"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.image_dynamic.draw_queries()
        network.text_dynamic.draw_queries()


def read_published(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the state dict in a file, at its top level or under ``state_dict``. No code in the file is executed.

    Args:
        path: Path of a ``.safetensors`` file, or of a file in torch's format.

    Returns:
        State dict, and its entry ``_metadata``, which MoRA's code writes; empty without one.

    Raises:
        RobustTuneError: The file is missing or damaged, or contains no state dict.
    """
    if path.suffix == ".safetensors" and path.is_file():
        try:
            found: Any = load_file(path)
        except SafetensorError as error:
            raise RobustTuneError(f"{path} is damaged or no checkpoint ({error!s:.100}): use another one") from None
    else:
        with torch.serialization.safe_globals(HARMLESS):
            found = read_plain(path, f"a checkpoint of {METHODS}, or its state_dict alone")
    found = found.get("state_dict", found) if isinstance(found, dict) else None
    metadata = found.pop("_metadata", {}) if isinstance(found, dict) else {}
    names_to_tensors = isinstance(found, dict) and all(isinstance(name, str) for name in found)
    if not found or not names_to_tensors or not all(isinstance(value, Tensor) for value in found.values()):
        raise RobustTuneError(f"{path} has no state dict: give a checkpoint of {METHODS}")
    return found, metadata if isinstance(metadata, dict) else {}


def _print_summary(matched: Matched, out: Path) -> None:
    numbers = sum(tensor.numel() for tensor in matched.state.values())
    print_line(f"{counted(len(matched.published), 'tensor')} matched, {counted(numbers, 'parameter')}:")
    for name in matched.published:
        print_line(f"  {name}")
    if matched.left:
        print_line(f"Drawn from --queries_seed, as the checkpoint lacks them: {', '.join(matched.left)}")
    if matched.set_aside:
        some = ", ".join(matched.set_aside[:3]) + ", ..." * (len(matched.set_aside) > 3)
        frozen = counted(len(matched.set_aside), "frozen tensor")
        print_line(f"{frozen} ignored, since the encoders have their own: {some}")
    print_line(f"Written to {out}")
