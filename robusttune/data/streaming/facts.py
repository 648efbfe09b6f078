"""The facts about classes of streamed training samples, which nobody has counted."""

from __future__ import annotations

from robusttune.data.labels import encode_labels, require_classes
from robusttune.data.rows import Rows
from robusttune.types import Facts


def estimated_facts(val: Rows, class_names: list[str], multilabel: bool) -> Facts:
    """Return facts whose class frequencies are estimated from validation samples, with additive smoothing.

    Args:
        val: Validation samples, labelled.
        class_names: Names of the C classes, in label order.
        multilabel: Whether a sample may have any number of classes, instead of exactly one.

    Returns:
        Facts with an unknown number of training samples. Each class counts as if it had one validation sample more.

    Raises:
        RobustTuneError: There are too few classes, or a validation sample has no known label.

    Example:
        >>> import pyarrow as pa
        >>> rows = Rows(pa.table({"id": ["1", "2"], "labels": [["soup"], ["soup"]]}))
        >>> estimated_facts(rows, ["pie", "soup"], multilabel=False).class_frequencies
        [0.25, 0.75]
    """
    require_classes(class_names, multilabel)
    sizes = encode_labels(val, class_names, multilabel, "val").sizes(len(class_names))
    total = len(val) + (2 if multilabel else len(class_names))
    return Facts(class_names, ((sizes + 1) / total).tolist(), multilabel)
