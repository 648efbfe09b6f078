"""Predictions for one sample with both modalities, without the image, and without the text, as data for the page."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from typing import Any

from PIL import Image

from robusttune.inference import Prediction, Predictor
from robusttune.page.sample import Sample

TOP = 5  # number of classes that the page lists
PREVIEW = 480  # greatest edge length of the returned picture, in pixels


def compare(model: Predictor, sample: Sample) -> dict[str, Any]:
    """Predict a sample under each condition.

    Args:
        model: Model.
        sample: Sample, whose modalities may be missing.

    Returns:
        Dictionary for JSON: ``conditions`` has a summary (see `summarise`) for ``complete``, ``no_image`` and
        ``no_text``, None where the sample lacks what is needed, and for ``nothing`` if no modality is left;
        ``current`` is the condition that the visitor has chosen, and ``used`` its modalities; ``image`` and ``text``
        are what the model got.
    """
    found: dict[str, Prediction | None] = dict.fromkeys(("complete", "no_image", "no_text"))
    if sample.image is not None and sample.text is not None:
        both = model.predict(image=sample.image, text=sample.text, explain=True)
        found = {"complete": both, "no_image": both.alone["text"], "no_text": both.alone["image"]}
    elif sample.text is not None:
        found["no_image"] = model.predict(text=sample.text)
    elif sample.image is not None:
        found["no_text"] = model.predict(image=sample.image)
    present = {"image": sample.image is not None, "text": sample.text is not None}
    used = [name for name, has in present.items() if has and name not in sample.removed]
    current = {("image", "text"): "complete", ("text",): "no_image", ("image",): "no_text"}.get(tuple(used), "nothing")
    if current == "nothing":
        found["nothing"] = model.predict()
    return {
        "conditions": {name: each and summarise(each) for name, each in found.items()},
        "current": current,
        "used": used,
        "image": None if sample.image is None else data_url(sample.image),
        "text": sample.text,
    }


def summarise(prediction: Prediction) -> dict[str, Any]:
    """Return the predicted labels and the most probable classes of a prediction.

    Returns:
        ``labels``, ``top`` (pairs of class name and probability, most probable first), and ``others``, the number of
        classes that are not listed.

    Example:
        >>> summarise(Prediction("cat", 0.75, {"dog": 0.25, "cat": 0.75}, ("text",), ("cat",)))
        {'labels': ['cat'], 'top': [('cat', 0.75), ('dog', 0.25)], 'others': 0}
    """
    ordered = sorted(prediction.probabilities.items(), key=lambda item: -item[1])
    return {"labels": list(prediction.labels), "top": ordered[:TOP], "others": max(0, len(ordered) - TOP)}


def data_url(image: Image.Image) -> str:
    """Return an image as a data URL, made smaller if it is large.

    Example:
        >>> data_url(Image.new("RGB", (4, 4)))[:22]
        'data:image/png;base64,'
    """
    small, content = image.copy(), BytesIO()
    small.thumbnail((PREVIEW, PREVIEW))
    if max(small.size) <= PREVIEW // 2:  # JPEG would blur the few pixels of a small one.
        kind = "png"
        small.save(content, "PNG")
    else:
        kind = "jpeg"
        small.save(content, "JPEG", quality=85)
    return f"data:image/{kind};base64,{b64encode(content.getvalue()).decode()}"
