"""A tuned model for predictions on single pairs, lists and tables."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray

from robusttune.errors import RobustTuneError
from robusttune.inference.evaluation import Evaluation, evaluate
from robusttune.inference.given_rows import FORMS, GivenRows, columns_of, one_pair, rows_of
from robusttune.inference.hub import HubModel
from robusttune.inference.members import Members, mean_thresholds
from robusttune.inference.prediction import Prediction, Predictions
from robusttune.models.classifier import Classifier
from robusttune.models.prompt_classifier import PromptClassifier
from robusttune.models.thresholds import DEFAULT
from robusttune.types import View

BATCH_SIZE = 64
# All modalities, the text alone, the image alone: in the order of the default conditions of a test, so that rounding is
# the same.
EVERY_VIEW = (View(), View(image=None), View(text=None))


class Embeddings(NamedTuple):
    """Embeddings of ``N`` samples.

    Attributes:
        fused: Embeddings of image and text together, shape (N, d), float32.
        image: Embeddings of the images, shape (N, d_i), float32, NaN where there is none.
        text: Embeddings of the texts, shape (N, d_t), float32, NaN where there is none.
    """

    fused: NDArray[np.float32]
    image: NDArray[np.float32]
    text: NDArray[np.float32]


class Predictor(HubModel):
    """A tuned model that predicts classes from images and texts, of which either may be missing.

    `robusttune.load` creates it. Calls from several threads do not disturb each other, and no global state changes.

    Args:
        classifiers: One classifier, or several whose class probabilities are averaged.

    Attributes:
        classifiers: The classifiers.
        facts: Class names, class frequencies and kind of task, from the training data.
        threshold: Least probability of a predicted class in multi-label data, in [0, 1]; None for the thresholds
            of the model, the mean of those of several.

    Raises:
        RobustTuneError: The classifiers predict different classes.

    Example:
        >>> from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
        >>> from robusttune.models.zero_shot import ZeroShotClassifier
        >>> from robusttune.types import Facts
        >>> clip = {"name": "robusttune:demo_clip", "first_layer": 2}
        >>> facts = Facts(["red circle", "blue square"], [0.5, 0.5], multilabel=False)
        >>> model = Predictor([ZeroShotClassifier(CLIPImageEncoder(**clip), CLIPTextEncoder(**clip), facts)])
        >>> model.predict(text="a large red circle").label
        'red circle'
    """

    def __init__(self, classifiers: Sequence[Classifier]) -> None:
        first = classifiers[0]
        for other in classifiers[1:]:
            if (other.class_names, other.facts.multilabel) != (first.class_names, first.facts.multilabel):
                raise RobustTuneError("the models predict different classes: give runs of one data set")
        self.classifiers = list(classifiers)
        self.facts = first.facts
        self.threshold: float | None = None
        self._members = Members.of(classifiers)
        self._lock = Lock()

    @property
    def classes(self) -> list[str]:
        """Return the names of the classes, in label order."""
        return list(self.classifiers[0].class_names)

    @property
    def device(self) -> torch.device:
        """Return the device of the model."""
        return self.classifiers[0].device

    def _thresholds(self) -> float | NDArray[np.float32]:
        """Return the thresholds of the model, shape (4, C); 0.5 for a model of one label."""
        found = mean_thresholds(self.classifiers)
        return DEFAULT if found is None else found.cpu().numpy()

    def set_classes(self, class_names: Sequence[str]) -> None:
        """Set the classes to predict from now on. Only models on a CLIP can predict others than those of training.

        Args:
            class_names: Names of the classes, in label order.

        Raises:
            RobustTuneError: The model cannot predict other classes, or a name is blank or too long.
        """
        for classifier in self.classifiers:
            if not isinstance(classifier, PromptClassifier):
                raise RobustTuneError(
                    "a fusion model predicts the classes that it was trained on: train it on the new ones, or use a "
                    "model on a CLIP"
                )
        with self._lock:
            for classifier in self.classifiers:
                classifier.set_classes(list(class_names))

    @overload
    def predict(
        self,
        /,
        *,
        image: Any = ...,
        text: str | None = ...,
        explain: bool = ...,
        unreadable_as_missing: bool = ...,
        batch_size: int = ...,
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        rows: Any,
        /,
        *,
        explain: bool = ...,
        unreadable_as_missing: bool = ...,
        batch_size: int = ...,
    ) -> Predictions: ...

    @overload
    def predict(
        self,
        /,
        *,
        images: Sequence[Any] | None = ...,
        texts: Sequence[str | None] | None = ...,
        explain: bool = ...,
        unreadable_as_missing: bool = ...,
        batch_size: int = ...,
    ) -> Predictions: ...

    def predict(
        self,
        rows: Any = None,
        /,
        *,
        image: Any = None,
        text: str | None = None,
        images: Sequence[Any] | None = None,
        texts: Sequence[str | None] | None = None,
        explain: bool = False,
        unreadable_as_missing: bool = False,
        batch_size: int = BATCH_SIZE,
    ) -> Prediction | Predictions:
        """Predict the classes of one sample or of many.

        Args:
            rows: List of pairs (image, text), list of dictionaries with the keys ``image`` and ``text``, pandas
                DataFrame, Arrow table, or dictionary of columns. Its other columns are ignored.
            image: Image of one sample; None if it is missing. `read_given` lists the kinds.
            text: Text of one sample; None if it is missing.
            images: Images of many samples, None where one is missing.
            texts: Texts of many samples, None where one is missing.
            explain: True to add the prediction from each modality alone.
            unreadable_as_missing: True to predict a sample whose image cannot be read from its text, and name the
                reason in ``unreadable``; False to raise an error.
            batch_size: Number of samples that are computed at once, at least 1.

        Returns:
            A `Prediction` for one sample, `Predictions` for many.

        Raises:
            RobustTuneError: An image cannot be read, or an argument is not of a form listed here.
        """
        given = _given(rows, image, text, images, texts)
        views = EVERY_VIEW if explain else EVERY_VIEW[:1]
        parts = [*self._members.probabilities(given, views, batch_size, unreadable_as_missing)]
        probabilities = np.concatenate([part.probabilities for part in parts], 1)
        predictions = Predictions(
            self.classes,
            probabilities[0],
            np.concatenate([part.present for part in parts]),
            self.facts.multilabel,
            self._thresholds() if self.threshold is None else self.threshold,
            probabilities[:0:-1] if explain else None,
            [reason for part in parts for reason in part.unreadable],
            given.index,
        )
        return predictions[0] if given.single else predictions

    def predict_proba(self, rows: Any = None, /, **given: Any) -> NDArray[np.float32]:
        """Predict class probabilities.

        Args:
            rows: Samples, see `predict`.
            given: Other arguments of `predict`.

        Returns:
            Probabilities, shape (N, C), float32; for one sample given by ``image`` and ``text``, shape (C,).
        """
        predicted: Prediction | Predictions = self.predict(rows, **given)
        if isinstance(predicted, Prediction):
            return np.array([*predicted.probabilities.values()], dtype=np.float32)
        return predicted.probabilities

    def embed(
        self,
        rows: Any = None,
        /,
        *,
        image: Any = None,
        text: str | None = None,
        images: Sequence[Any] | None = None,
        texts: Sequence[str | None] | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Embeddings:
        """Compute embeddings, for search and clustering.

        The fused embedding is the input of a fusion model's last layers. On a CLIP it is the normalised mean of the
        embeddings of image and text.

        Args:
            rows: Samples, see `predict`; so are ``image``, ``text``, ``images`` and ``texts``.
            batch_size: Number of samples that are computed at once, at least 1.

        Returns:
            Embeddings of ``N`` samples; one sample has shape (1, d).

        Raises:
            RobustTuneError: Several models are averaged, or see `predict`.
        """
        if len(self.classifiers) > 1:
            raise RobustTuneError("several models have no common embeddings: load one of them")
        given = _given(rows, image, text, images, texts)
        return Embeddings(*self._members.embeddings(given, batch_size))

    def evaluate(
        self,
        data: Any,
        conditions: str | Sequence[str] | None = "standard",
        *,
        split: Literal["val", "test"] = "test",
        label_column: str = "label",
        seed: int = 0,
        batch_size: int = BATCH_SIZE,
    ) -> Evaluation:
        """Compute the metrics of `robusttune test` on labelled data. This imports Lightning and torchmetrics.

        Args:
            data: Path of a table with the columns ``image``, ``text`` and ``label``; rows or a table in memory as for
                `predict`; or a source, such as ``robusttune.data.sources.Table(test="t.csv", text_column="title")``.
            conditions: Name of a list of conditions that comes with robusttune (``quick``, ``standard``, ``full``), or
                names of conditions; None for ``complete``, ``no_image`` and ``no_text``.
            split: Split of a source.
            label_column: Column with the labels.
            seed: Seed of noise and missing modalities, as `data.seed` of a test.
            batch_size: Number of samples that are computed at once, at least 1.

        Returns:
            Metrics by condition, with 95 % confidence intervals.

        Raises:
            RobustTuneError: The data cannot be read, have no labels, or have classes that the model does not predict;
                or averaged models have different encoders.
        """
        return evaluate(self.classifiers, data, conditions, split, label_column, seed, batch_size)


def _given(
    rows: Any, image: Any, text: str | None, images: Sequence[Any] | None, texts: Sequence[str | None] | None
) -> GivenRows:
    """Return the samples of a call of `Predictor.predict`.

    Raises:
        RobustTuneError: More than one form of samples is given.
    """
    pair, columns = (image is not None or text is not None), (images is not None or texts is not None)
    if (rows is not None) + pair + columns > 1:
        raise RobustTuneError(f"samples were given in two ways at once: {FORMS}")
    if rows is not None:
        return rows_of(rows)
    return columns_of(images, texts) if columns else one_pair(image, text)
