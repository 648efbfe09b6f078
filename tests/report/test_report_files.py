"""The files of a report."""

from __future__ import annotations

import csv
import io
import re
import shutil
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from report.made_up import CONDITIONS, SHARD, shares, write_multilabel_run, write_run
from torchmetrics.functional.classification import binary_calibration_error

from robusttune.errors import RobustTuneError
from robusttune.evaluation.calibration import BINS
from robusttune.report import Document, report_on, write
from robusttune.report.compare import Comparison, compare
from robusttune.report.models import group as group_into_models
from robusttune.report.plots.calibration import bins_of
from robusttune.report.plots.confusion import most_confused
from robusttune.report.plots.style import curve_styles
from robusttune.report.predictions import read_predictions
from robusttune.report.runs import find_runs
from robusttune.report.tables import Cell, Rows, Table, as_latex, as_markdown, as_rich

NASTY = r"50% <b>&_#$~^{x}\ | *star* `tick` [0]"
SHARE = dict.fromkeys(CONDITIONS, 0.8)
RATES = {"missing_image_50": 0.7, "missing_both_50": 0.6}
NOISE = {"noisy_image_low_resolution_3": 0.6, "noisy_text_ocr_2": 0.6, "missing_both_50+noisy_text_ocr_2": 0.5}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of two seeds and one with a nasty name, an interrupted run and one without a test."""
    root = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        more = {"canonical_correlation": {"layers": [0.5, 0.6], "shuffled": [0.1, 0.2]}}
        predictions = shares(60, seed, **SHARE, **RATES, **NOISE)
        write_run(root / f"a/{seed}", "molt", predictions, seed=seed, more=more)
        predictions = shares(60, seed, **{name: share - 0.1 for name, share in (SHARE | RATES).items()})
        write_run(root / f"b/{seed}", "late", predictions, {"model.x": 1}, seed=seed)
    write_run(root / "c/0", NASTY, shares(60, 0, **SHARE), {"model.x": 2}, class_names=("pie", "soup", "stew"))
    write_run(root / "d/0", "stopped <i>", {}, finished=False)
    write_run(root / "d/1", "waits", {}, tested=False)
    return root


@pytest.fixture(scope="module")
def document(root: Path) -> Document:
    return report_on([str(root)], trend=["molt", "late"])


@pytest.fixture(scope="module")
def comparison(root: Path) -> Comparison:
    models, _ = group_into_models([run for run in find_runs([str(root)]) if run.tested is not None])
    return compare(models)


@pytest.fixture(scope="module")
def folder(document: Document, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "report"
    write(document, folder)
    return folder


class Page(HTMLParser):
    """Which tags are open, what is said, and what is referred to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.predicted = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href", "action", "data") or "url(" in (value or ""):
                self.references.append(re.sub(r".*url\((.*?)\).*", r"\1", value or ""))
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.predicted += data


def test_the_page_is_whole_and_needs_nothing_beside_it(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object", "i", "b"} & page.tags
    assert not re.search(r"https?:|//\w|@import", text)
    outside = [name for name in page.references if not name.startswith("data:image/png;base64,")]
    assert {*outside} <= {f"#{name}" for name in page.ids}
    assert len(page.ids) == len({*page.ids})
    assert text.count("<svg") == 6


def test_the_page_says_all_of_it_in_order(folder: Path, document: Document) -> None:
    said = Page((folder / "report.html").read_text()).predicted
    order = [
        document.finding,
        "Excluded runs",
        "Accuracy by condition",
        "Missing at a rate",
        "Difference in accuracy to molt",
        "Noise",
        "Calibration error",
        "Robustness",
        "Effective robustness",
        "Canonical correlation",
        "Confusion",
    ]
    places = [said.index(part) for part in order]
    assert places == sorted(places)
    assert f"{NASTY} (1 seed)" in said
    assert "molt (2 seeds)" in said


def test_runs_that_do_not_count_are_reported_with_what_to_run(root: Path, folder: Path, document: Document) -> None:
    assert [(run.folder, run.reason) for run in document.left_out] == [
        (f"{root}/d/0", "interrupted"),
        (f"{root}/d/1", "never tested"),
    ]
    test = f"robusttune test --config {root}/d/1/config.yaml --ckpt_path {root}/d/1/checkpoints/best.ckpt"
    fit = f"robusttune fit --config {root}/d/0/config.yaml"
    for text in ((folder / "report.md").read_text(), Page((folder / "report.html").read_text()).predicted):
        assert fit in text
        assert test in text
    assert [*dict.fromkeys(line[0] for line in document.values.lines)] == ["molt", "late", NASTY]


def test_an_interrupted_run_with_a_checkpoint_goes_on_from_it(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "a", shares(10, 0, **SHARE))
    stopped = write_run(tmp_path / "1", "b", {}, finished=False)
    (stopped / "checkpoints").mkdir()
    (stopped / "checkpoints/last.ckpt").touch()
    command = report_on([str(tmp_path)]).left_out[0].command
    assert command == f"robusttune fit --config {stopped}/config.yaml --ckpt_path {stopped}/checkpoints/last.ckpt"


def test_a_test_without_complete_samples_does_not_count(tmp_path: Path) -> None:
    share = {"no_image": 0.5, "missing_both_50": 0.6}
    folder = write_run(tmp_path / "0", "a", shares(10, 0, **share), more={"checkpoint": "checkpoints/last.ckpt"})
    command = (
        f"robusttune test --config {folder}/config.yaml --ckpt_path {folder}/checkpoints/last.ckpt "
        "--data.evaluation.conditions '[complete, no_image, missing_both_50]'"
    )
    with pytest.raises(RobustTuneError) as refused:
        report_on([str(tmp_path)])
    reason = "tested without the condition complete"
    assert str(refused.value).endswith(f"the first is {folder} ({reason}): run {command}")
    write_run(tmp_path / "1", "b", shares(10, 0, **SHARE))
    document = report_on([str(tmp_path)])
    assert document.left_out == [(str(folder), reason, command)]
    assert {line[0] for line in document.values.lines} == {"b"}


def test_tests_that_differ_are_reported_after_the_finding(tmp_path: Path) -> None:
    for number, name in enumerate(("best", "last")):
        more = {"checkpoint": f"runs/checkpoints/{name}.ckpt"}
        write_run(tmp_path / f"runs/{number}", "a", shares(10, number, **SHARE), more=more)
    document = report_on([str(tmp_path / "runs")])
    write(document, tmp_path / "out")
    sentence = "). Models were tested differently (checkpoint): values may differ for this reason alone."
    for text in (
        document.finding,
        (tmp_path / "out/report.md").read_text(),
        Page((tmp_path / "out/report.html").read_text()).predicted,
    ):
        assert sentence in text


def test_predictions_are_in_the_bins_of_the_calibration_error(tmp_path: Path) -> None:
    """Those of torchmetrics, also with confidences at the edges of the bins and next to them."""
    edges = torch.linspace(0, 1, BINS + 1)[1:-1]
    confidence = torch.cat([edges, edges.nextafter(torch.tensor(0.0)), edges.nextafter(torch.tensor(1.0))])
    right = np.random.default_rng(0).random(len(confidence)) < 0.5
    predictions = write_run(tmp_path / "0", "a", {"complete": right}) / "report" / SHARD
    table = pq.read_table(predictions).sort_by("id")
    column = table.column_names.index("confidence")
    pq.write_table(table.set_column(column, "confidence", pa.array(confidence.numpy())), predictions)
    bins = bins_of(read_predictions(predictions.parent), "complete")
    assert bins.size.tolist() == [1, *[3] * (BINS - 2), 2]
    expected = binary_calibration_error(confidence, torch.from_numpy(right).long(), n_bins=BINS, norm="l1")
    assert np.abs(bins.correct - bins.confidence).sum() / len(right) == pytest.approx(float(expected))


def test_csv_has_every_number(folder: Path, comparison: Comparison) -> None:
    rows = list(csv.DictReader((folder / "report.csv").open(newline="")))
    assert list(rows[0]) == ["model", "condition", "metric", "mean", "deviation", "seeds", "low", "high"]
    found = {(row["model"], row["condition"], row["metric"]): row for row in rows}
    assert len(found) == len(rows)
    molt, _, nasty = comparison.models
    row, estimate = found["molt", "no_text", "brier"], comparison.estimate(molt, "no_text", "brier")
    assert estimate is not None
    assert (float(row["mean"]), float(row["deviation"]), row["seeds"], row["low"]) == (*estimate[:2], "2", "")
    row, estimate = found[NASTY, "mean", "accuracy"], comparison.estimate(nasty, "mean")
    assert estimate is not None
    assert (row["deviation"], float(row["low"]), float(row["high"])) == ("", estimate.low, estimate.high)
    row, difference = found["late", "complete", "accuracy_difference"], comparison.differences["late"]["complete"]
    assert (float(row["mean"]), float(row["low"]), row["seeds"]) == (difference.mean, difference.low, "2")


def unlatex(text: str) -> str:
    """What LaTeX would show."""
    names = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<", "textgreater": ">"}
    text = re.sub(r"\\textbf\{(.*)\}$", r"\1", text.strip()).replace(r"$\pm$", "±").replace(r"\textbar{}", "|")
    text = re.sub(r"\\(text\w+)\{\}", lambda found: names[found[1]], text)
    return re.sub(r"\\([&%$#_{}])", r"\1", text)


def test_latex_reads_back(folder: Path, document: Document) -> None:
    text = (folder / "report.tex").read_text()
    tables = re.findall(r"\\toprule\n(.*?)\\bottomrule", text, re.DOTALL)
    assert len(tables) == len(document.tables)
    for begin in ("table", "tabular"):
        assert text.count(rf"\begin{{{begin}}}") == text.count(rf"\end{{{begin}}}") == len(tables)
    header, *lines = [line for line in tables[0].splitlines() if not line.startswith((r"\midrule", r"\multicolumn"))]
    assert [unlatex(cell) for cell in re.split(r"(?<!\\)&", header.removesuffix(r" \\"))][1:] == [
        "molt (2 seeds)",
        "late (2 seeds)",
        f"{NASTY} (1 seed)",
    ]
    rows = [row for _, group in document.tables[0].groups for row in group]
    for line, (name, cells) in zip(lines, rows, strict=True):
        read = [unlatex(cell) for cell in re.split(r"(?<!\\)&", line.removesuffix(r" \\"))]
        assert read == [name, *(cell.text for cell in cells)]


def test_a_bracket_does_not_end_a_line_of_latex() -> None:
    latex = as_latex(Table("t", ["[a]"], [Rows("", [("[b]", [Cell("[0, 1]")])])]))
    assert "\n[" not in latex
    assert "{[b]} & {[0, 1]}" in latex


def test_markdown_escapes_and_marks(folder: Path) -> None:
    table = as_markdown(Table("t", [NASTY], [Rows("h", [("r", [Cell("1", True)])]), Rows("", [("s", [Cell()])])]))
    lines = table.splitlines()
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines] == [3] * len(lines)
    assert lines[0] == r"|  | 50% &lt;b&gt;&amp;\_\#\$\~^\{x\}\\ \| \*star\* \`tick\` \[0\] |"
    assert lines[2:] == ["| *h* |  |", "| r | **1** |", "| s | - |"]
    for name in re.findall(r"\]\((plots/\w+\.png)\)", (folder / "report.md").read_text()):
        assert (folder / name).exists()


def test_best_values_and_clear_differences_stand_out(document: Document, comparison: Comparison) -> None:
    rows = {name: cells for _, group in document.tables[0].groups for name, cells in group}
    assert [cell.strong for cell in rows["missing_image_50"]] == [True, False, False]
    assert [cell.text for cell in rows["missing_image_50"]][2] == "-"
    assert [cell.strong for cell in rows["noisy_text_ocr_2"]] == [False] * 3  # of one model only
    assert "±" in rows["complete"][0].text
    assert re.fullmatch(r"0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]", rows["complete"][2].text)
    differences = next(table for table in document.tables if table.title.startswith("Difference"))
    cells = {name: cells for _, group in differences.groups for name, cells in group}
    of_late = comparison.differences["late"]["complete"]
    assert cells["complete"][0].strong == of_late.clear
    quality = next(table for table in document.tables if table.title.startswith("Calibration"))
    loss = next(group for heading, group in quality.groups if heading == "loss")
    worst = comparison.best("complete")[0] is comparison.models[0]
    assert dict(loss)["complete"][0].strong == worst


def test_groups_follow_each_other(document: Document) -> None:
    headings = [heading for heading, _ in document.tables[0].groups]
    assert headings == ["missing modality", "missing at a rate", "noisy images", "noisy texts", "combined", ""]
    assert document.tables[0].groups[0].rows[0][0] == "complete"


def test_the_terminal_shows_all_models_whatever_its_width(document: Document) -> None:
    from rich.console import Console

    for width in (60, 200):
        file = io.StringIO()
        console = Console(width=width, file=file)
        console.print(as_rich(document.tables[0], width))
        shown = file.getvalue()
        assert max(map(len, shown.splitlines())) <= width
        for cells in (cells for _, group in document.tables[0].groups for _, cells in group):
            assert all(cell.text in shown for cell in cells)


def test_plots_are_pictures_with_the_names_of_models(folder: Path, document: Document) -> None:
    names = {"missing_rates", "image_noise", "text_noise", "calibration", "canonical_correlation", "confusion"}
    assert {path.name for path in (folder / "plots").iterdir()} == {
        f"{n}.{end}" for n in names for end in ("png", "svg")
    }
    for name in names:
        with Image.open(folder / f"plots/{name}.png") as picture:
            assert picture.convert("L").getextrema() != (255, 255)
            assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        tree = ElementTree.parse(folder / f"plots/{name}.svg")
        texts = {"".join(node.itertext()).strip() for node in tree.iter("{http://www.w3.org/2000/svg}text")}
        if name not in ("confusion", "canonical_correlation"):
            assert {"molt", "late", NASTY} <= texts


def test_plots_without_anything_to_draw_are_left_out_and_old_ones_removed(folder: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "runs/0", "only", shares(30, 0, **SHARE))
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    (out / "plots/mine.png").touch()
    document = report_on([str(tmp_path / "runs")])
    write(document, out)
    assert {path.name for path in (out / "plots").iterdir()} == {
        *("mine.png", "calibration.png", "calibration.svg", "confusion.png", "confusion.svg")
    }
    assert document.finding.startswith("only is the only model; its mean accuracy over 3 conditions is 0.")
    assert not list(out.rglob("*.partial"))


def test_several_labels(tmp_path: Path) -> None:
    label = shares(40, 0, a=0.5)["a"][:, None] ^ [[True, False, True]]
    write_multilabel_run(tmp_path / "0", "a", label, dict.fromkeys(CONDITIONS, label))
    document = report_on([str(tmp_path)])
    assert {*document.plots} == {"calibration"}
    assert "f1 macro" in document.finding


@pytest.mark.slow
def test_the_same_runs_make_the_same_files(root: Path, folder: Path, tmp_path: Path) -> None:
    write(report_on([str(root)], trend=["molt", "late"]), tmp_path)
    for path in folder.rglob("*.*"):
        assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_no_two_models_look_alike() -> None:
    seen = curve_styles([f"m{number}" for number in range(40)])
    assert len(seen) == len({(style.colour, style.marker) for style in seen}) == 40


def test_names_that_no_font_has_are_numbers_with_a_key(tmp_path: Path) -> None:
    classes = ("пирог", "\U000e0100\U000f1234", "суп")  # of a private area
    write_run(tmp_path / "0", "a", shares(30, 0, **SHARE), class_names=classes)
    plot = report_on([str(tmp_path)]).plots["confusion"]
    assert plot.caption.endswith(f"No font of this machine has the names of: #2 {classes[1]}.")
    assert "пирог" in plot.svg
    assert "#2" in plot.svg
    assert classes[1] not in plot.svg


def test_the_most_confused_classes_are_kept() -> None:
    counts = np.diag([50] * 25)
    counts[24, 3], counts[7, 20] = 5, 4
    kept = most_confused(counts)
    assert len(kept) == 20
    assert kept == sorted(kept)
    assert {24, 3, 7, 20} <= {*kept}
