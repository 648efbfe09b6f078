"""Protocols: matrices of runs, such as base-to-new on eleven data sets, their state, and their results."""
