"""Checks and measurements on a GPU, with one command: `make gpu-check`, or `python tests/gpu_check`.

`parts/` holds the checks, one file each. Each part runs in a process of its own, under its own time limit. The results
are written to a JSON file after each check, so a run that is cut off keeps what it had. Nothing is downloaded or
installed, and all data are made on the spot. With ``--device cpu --small`` everything runs on a CPU in a small form,
as `test_gpu_check.py` does.
"""
