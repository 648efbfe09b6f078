"""Names of the metrics: all of a kind of data, the main one, and those for which lower is better."""

from __future__ import annotations

LOWER_IS_BETTER = ("loss", "brier", "calibration_error")


def names_of_metrics(multilabel: bool, classes: int, mixed: bool) -> list[str]:
    """Return the names of the metrics that are computed for this kind of data.

    Multi-label data have no balanced accuracy, because recall alone is perfect for a model that predicts all classes;
    their ``f1_macro`` weighs all classes equally. Base and new classes have accuracies of their own.

    Args:
        multilabel: True if a sample may have several labels.
        classes: Number of classes.
        mixed: True if some of the classes were trained on and others were not.

    Example:
        >>> names_of_metrics(multilabel=False, classes=3, mixed=False)[:3]
        ['accuracy', 'balanced_accuracy', 'f1_macro']
    """
    if mixed:
        return ["base_accuracy", "new_accuracy", "harmonic_mean", "unknown_accuracy", *reversed(LOWER_IS_BETTER)]
    found = ["f1_macro", "f1_micro", "f1_weighted", "f1_samples"]
    if not multilabel:
        found = [
            "accuracy",
            "balanced_accuracy",
            *(["top5_accuracy"] if classes > 5 else []),
            "f1_macro",
            "f1_weighted",
        ]
    return [*found, "auroc", "average_precision", *reversed(LOWER_IS_BETTER)]


def headline(multilabel: bool, mixed: bool) -> str:
    """Return the name of the main metric.

    Args:
        multilabel: True if a sample may have several labels.
        mixed: True if some of the classes were trained on and others were not.
    """
    return "harmonic_mean" if mixed else "f1_macro" if multilabel else "accuracy"
