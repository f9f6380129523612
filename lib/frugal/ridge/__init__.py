"""Ridge regression by sums that add up: statistics of any number of rows, and the readouts of all penalties at once.

What solves a regularised least-squares problem enters here, whatever its rows are.
"""

from frugal.ridge.path import RidgePath
from frugal.ridge.square_root import SquareRootPath, SquareRootStatistics
from frugal.ridge.statistics import RidgeStatistics

__all__ = ["RidgePath", "RidgeStatistics", "SquareRootPath", "SquareRootStatistics"]
