"""Ridge regression: by sums that add up, for any number of rows and all penalties, or of rows in memory.

What solves a regularised least-squares problem enters here, whatever its rows are.
"""

from frugal.ridge.path import RidgePath
from frugal.ridge.rows import LinearMap
from frugal.ridge.statistics import RidgeStatistics

__all__ = ["LinearMap", "RidgePath", "RidgeStatistics"]
