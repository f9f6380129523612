"""Sweeps: many runs of a notebook, chosen by Optuna and carried out by Parsl, here or on a cluster.

Enters: what needs a pool of workers, such as `shards`, which adds up ridge statistics. One run belongs to `lab.run`.
"""

from frugal.lab.sweep.definition import Sweep, read_sweep
from frugal.lab.sweep.driver import best_point, run_sweep
from frugal.lab.sweep.pool import Site, read_site
from frugal.lab.sweep.report import write_sweep_report

__all__ = ["Site", "Sweep", "best_point", "read_site", "read_sweep", "run_sweep", "write_sweep_report"]
