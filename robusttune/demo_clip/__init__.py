"""A tiny CLIP that ships with the package, trained on `shapes`; MODEL_CARD.md describes its abilities and limits."""
