"""Use of tuned models: load one without a trainer, and predict single pairs, tables, and probabilities."""

from __future__ import annotations

from robusttune.inference.evaluation import Evaluation
from robusttune.inference.loading import load
from robusttune.inference.prediction import Prediction, Predictions
from robusttune.inference.predictor import Embeddings, Predictor

__all__ = ["Embeddings", "Evaluation", "Prediction", "Predictions", "Predictor", "load"]
