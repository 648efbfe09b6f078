"""The command ``predict``: predict the samples of a table with a checkpoint, of which no configuration is needed."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from robusttune.callbacks import HostWatch, PredictionProgress, PredictionWriter
from robusttune.checkpoint_file import checkpoint_path
from robusttune.commands.configs import prepare_arguments
from robusttune.commands.lightning_cli import launch
from robusttune.commands.nulls import check_nulls
from robusttune.commands.run_config import WHOLE
from robusttune.commands.strategies import refuse_sharding
from robusttune.commands.trainer import as_list, cluster_plugins, leaving_ranks
from robusttune.data.sources.base import require_paths
from robusttune.data.sources.files import path_kind
from robusttune.data.sources.table_files import PATTERN
from robusttune.errors import RobustTuneError
from robusttune.inference.tables.data_module import PART_ROWS, PredictionData
from robusttune.paths import user_path
from robusttune.tasks import RobustTask
from robusttune.tasks.loading import load_any_task

KINDS: dict[str, Any] = {"trainer": Trainer, "data": PredictionData}
OPTIONS: dict[str, tuple[Any, Any, str]] = {  # types, defaults and meanings
    "out": (
        str,
        "predictions",
        "Folder of the predictions. The same command with the same folder continues after the last finished part.",
    ),
    "shard": (str | None, None, "Share of this job among several with the same --out, such as 3/16 in a SLURM array."),
    "top_k": (
        int | None,
        None,
        "Number of most probable classes to write, as lists; by default, each class has a column.",
    ),
    "columns": (
        list[str] | str | None,
        None,
        "Columns of the input to copy to the predictions: names, joined by commas, or all.",
    ),
    "part_rows": (int, PART_ROWS, "Number of rows per output file."),
}


class PredictCLI(LightningCLI):
    """The command line of ``predict``. Encoders, settings and classes come from the checkpoint."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of the command, and pass them to the data."""
        parser.add_argument(
            "--ckpt_path",
            type=str,
            required=True,
            help="Folder of a run, whose best checkpoint is used, or a checkpoint.",
        )
        parser.add_argument(
            "--input",
            type=str | None,
            default=None,
            help="Table of the samples, in any format that data.source reads; a folder or pattern is all tables in it.",
        )
        for name, (kind, default, meaning) in OPTIONS.items():
            parser.add_argument(f"--{name}", type=kind, default=default, help=meaning)
        parser.set_defaults({"data.source": {"class_path": "robusttune.data.sources.Table"}})
        for name in ("ckpt_path", *OPTIONS):
            parser.link_arguments(name, f"data.{name}")
        parser.link_arguments("trainer.precision", "data.precision")
        parser.link_arguments("data.checkpoint", "model.checkpoint", apply_on="instantiate")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the command, with the arguments of `Trainer.predict` that are no options of it."""
        return {"predict": {"model", "dataloaders", "datamodule", "ckpt_path", "weights_only", "return_predictions"}}

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the arguments, and pass the input to the source.

        Raises:
            RobustTuneError: An argument is invalid, or there is no checkpoint or input.
        """
        super().parse_arguments(parser, args)
        config = self.config.predict
        if config.trainer is None:
            config.trainer = self._parser("predict").get_defaults().trainer
        check_nulls(config, KINDS)
        refuse_sharding(config.trainer.strategy)
        config.ckpt_path = config.data.ckpt_path = str(checkpoint_path(config.ckpt_path))
        if config.input is not None:
            source, path = config.data.source, user_path(config.input)
            if path_kind(path) in ("nothing", "other") and not PATTERN.intersection(path.name):
                require_paths(path, hint="give --input a table")
            if "predict" not in source.init_args:
                raise RobustTuneError(f"--input is a table, and {source.class_path} reads none: leave one of them out")
            source.init_args.predict = config.input

    def _parse_ckpt_path(self) -> None:
        """Do nothing. Lightning would override settings with a checkpoint's hyperparameters, and import their class."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Create the Trainer with the callbacks and plugins of this project."""
        config = self._get(self.config_init, "trainer")
        callbacks = [HostWatch(), *as_list(config.callbacks), PredictionWriter()]
        if config.enable_progress_bar is not False:
            callbacks.append(PredictionProgress())
        if config.default_root_dir is None:
            kwargs["default_root_dir"] = user_path(self._get(self.config_init, "out"))  # see `TrainerCLI`
        return super().instantiate_trainer(
            plugins=cluster_plugins(config), callbacks=callbacks, enable_model_summary=False, **kwargs
        )

    def predict(self, model: RobustTask, datamodule: PredictionData) -> None:
        """Predict. Lightning would otherwise keep all predictions in memory."""
        self.trainer.predict(model, datamodule=datamodule, return_predictions=False)


def run(args: list[str]) -> None:
    """Run the command.

    Args:
        args: Arguments of the command line after ``predict``.

    Raises:
        RobustTuneError: An argument is invalid, or the checkpoint, the input or the output cannot be used.
    """
    prepared = prepare_arguments(["predict", *args])
    if WHOLE in prepared.settings:
        raise RobustTuneError(
            "predict takes encoders, model and classes from the checkpoint: leave out the --config of a run"
        )
    if prepared.settings.get("ckpt_path", [None])[-1] is None and not {"-h", "--help"}.intersection(args):
        raise RobustTuneError("predict needs a checkpoint: give --ckpt_path")
    with leaving_ranks():
        launch(
            PredictCLI,
            "predict",
            prepared.args,
            model_class=load_any_task,
            datamodule_class=PredictionData,
            subclass_mode_model=False,
            save_config_callback=None,
            seed_everything_default=False,  # Predictions are not random.
            trainer_defaults={"logger": False},
            parser_kwargs={"exit_on_error": False, "predict": {"exit_on_error": False}},
        )
