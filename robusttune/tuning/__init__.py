"""Search for good values of settings: each trial is a fit in a process of its own, judged on validation data."""
