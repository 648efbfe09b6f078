"""Prediction of whole tables: input in pieces, output in parts, and the manifest that describes them."""
