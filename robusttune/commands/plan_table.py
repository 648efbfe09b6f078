"""The table of a plan on the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from robusttune.counting import counted
from robusttune.planning import Plan
from robusttune.planning.plan import Steps
from robusttune.terminal import cell

Row = tuple[str, str, str]  # name, value, remark
SIZES = (("MiB", 2**20), ("GiB", 2**30), ("TiB", 2**40), ("PiB", 2**50))
# Units of time, each with its seconds and the smallest duration in seconds that is written in it.
TIMES = (("days", 86400, 172800), ("h", 3600, 7200), ("min", 60, 120), ("s", 1, 1), ("ms", 1e-3, 0))


def show(plan: Plan, absent: str | None, console: Console) -> None:
    """Print a plan as a table with notes.

    Args:
        plan: Plan to print.
        absent: Accelerator of the configuration if this machine lacks it, so that another was measured; else None.
        console: Rich console to print to.
    """
    extent = plan.extent
    devices = counted(extent.world_size, "device")
    devices += f" ({extent.nodes} x {extent.devices})" if extent.nodes > 1 else ""
    title = cell(f"{plan.task}, {counted(plan.classes, 'class', 'classes')}, {devices}", "table.title")
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    sections = {
        "Model": _model(plan),
        "Memory a device": _memory(plan),
        "Disk": _disk(plan),
        f"Time, measured on {plan.device}": _time(plan),
    }
    if extent.world_size > 1:
        sections["Between devices"] = _traffic(plan)
    for heading, rows in sections.items():
        table.add_row(cell(heading, "bold"), "", "")
        for name, value, remark in rows:
            table.add_row(*map(cell, (f"  {name}", value, remark)))
        table.add_section()
    console.print(table)
    for note in notes(plan, absent):
        console.print(cell(f"note: {note}"), soft_wrap=True, highlight=False)


def notes(plan: Plan, absent: str | None) -> Iterator[str]:
    """Yield notes on the limits of the numbers in a plan. See `show` for the arguments."""
    if absent is not None:
        yield f"there is no {absent} here: times and memory are those of {plan.device}"
    if plan.extent.world_size > 1:
        yield "one device was measured: communication time between devices is not included"
    if plan.extent.devices > 1 and plan.device == "cpu" and absent is None:
        yield "the devices of a node share its cores, and one was measured that had all of them"
    if plan.disk.features:
        yield "features were read from this machine's memory: a slow disk, or a network's, is not in the plan"
    for name, steps in (("training", plan.time.step), ("validation", plan.time.validation_step)):
        if steps is not None and steps.loader_bound:
            yield f"{name} is limited by data loading: data.cache.folder or more data.loader.workers may help"


def size(count: float) -> str:
    """Format a number of bytes with a binary unit, MiB or larger.

    Example:
        >>> size(3 * 2**30)
        '3.00 GiB'
    """
    unit, factor = next((pair for pair in reversed(SIZES) if count >= pair[1]), SIZES[0])
    return f"{count / factor:,.{_digits(count / factor)}f} {unit}"


def span(seconds: float) -> str:
    """Format a duration in seconds with a suitable unit: 20.0 ms, 90.0 s, 15.0 min, 30.0 h.

    Example:
        >>> span(0.02), span(90), span(900)
        ('20.0 ms', '90.0 s', '15.0 min')
    """
    unit, factor = next((unit, factor) for unit, factor, least in TIMES if seconds >= least)
    return f"{seconds / factor:,.{_digits(seconds / factor)}f} {unit}"


def _digits(value: float) -> int:
    return 0 if value >= 100 else 1 if value >= 10 else 2


def _scaled(value: float, factor: float, unit: str) -> str:
    return f"{value / factor:,.{max(_digits(value / factor), 1)}f} {unit}"


def _model(plan: Plan) -> Iterator[Row]:
    model = plan.model
    frozen = ", ".join(f"{name.replace('_', ' ')} {number / 1e6:,.1f} M" for name, number in model.frozen.items())
    yield "trained parameters", _scaled(model.trained, 1e6, "M"), ""
    yield "frozen parameters", _scaled(sum(model.frozen.values()), 1e6, "M"), frozen
    yield "operations a step", _scaled(model.flops, 1e9, "GFLOP"), "with gradients: forward and backward"
    if plan.disk.features:
        flops = {part.what: part.flops for part in plan.disk.features}
        yield "", _scaled(sum(flops.values()), 1e9, "GFLOP"), "to encode an image and a text, once for the cache"
    else:
        yield "", _scaled(model.frozen_flops, 1e9, "GFLOP"), "without gradients: frozen encoders"


def _memory(plan: Plan) -> Iterator[Row]:
    memory = plan.memory
    yield "weights", size(memory.weights), "frozen ones included"
    yield "gradients", size(memory.gradients), ""
    yield "optimiser state", size(memory.optimizer_state), ""
    yield "activations", size(memory.activations), "kept for the backward pass"
    yield "batch", size(memory.batch), counted(plan.batch_size, "sample")
    known = (memory.weights, memory.gradients, memory.optimizer_state, memory.activations, memory.batch)
    yield "sum", size(sum(known)), "without temporary memory"
    if memory.peak is not None:
        yield "peak", size(memory.peak), "all that was allocated"


def _disk(plan: Plan) -> Iterator[Row]:
    features = plan.disk.features
    if features:
        counts = {what: sum(part.inputs for part in features if part.what == what) for what in ("images", "texts")}
        inputs = " and ".join(f"{count:,} {what}" for what, count in counts.items())
        missing = sum(part.missing_bytes for part in features)
        status = "complete" if missing == 0 else f"{size(missing)} are missing"
        yield "feature cache", size(sum(part.bytes for part in features)), f"{inputs} of all splits, {status}"
    yield "a checkpoint", size(plan.disk.checkpoint), "a run keeps two, best and last"


def _time(plan: Plan) -> Iterator[Row]:
    time, step = plan.time, plan.time.step
    yield "step", span(step.seconds), f"{step.measured} measured, half of them {_between(step)}"
    yield from _parts(step)
    samples = plan.batch_size * plan.extent.world_size
    yield "epoch", span(time.epoch), f"{counted(step.batches, 'step')} of {counted(samples, 'sample')}"
    checked = time.validation_step
    if checked is not None:
        batches = counted(checked.batches, "batch", "batches")
        remark = f"{batches} of {span(checked.seconds)}, and metrics {span(time.metrics)}"
        yield "validation", span(time.validation), remark
        yield from _parts(checked)
    if plan.disk.features:
        yield "filling the cache", span(time.fill), "once, for training and validation"
    yield "fit", span(time.fit), f"{counted(time.epochs, 'epoch')}, {counted(time.validations, 'validation')}"


def _parts(steps: Steps) -> Iterator[Row]:
    alone = "" if steps.loading is None else f", workers alone need {span(steps.loading)}"
    yield "  model", span(steps.working), ""
    yield "  loader", span(steps.waiting), f"waited for{alone}"


def _between(steps: Steps) -> str:
    return " to ".join(span(seconds) for seconds in steps.quartiles)


def _traffic(plan: Plan) -> Iterator[Row]:
    yield "gradients", size(plan.traffic.step), "of each device, averaged in every step"
    yield "validation", size(plan.traffic.validation), "scores of labels and counts, for each process"
