"""A web page to try a tuned model: give an image and a text, remove or corrupt either, compare the probabilities."""
