"""Ridge regression in closed form: every penalty from one eigendecomposition.

With centred inputs X [n, D] and targets Y [n, K], the weights for the penalty `alpha` are

    W = Y'X (X'X + alpha t I)^-1,   t = trace(X'X) / D

so that `alpha` is relative to the mean eigenvalue and means the same for any length of text and any scale of the
inputs. In the eigenbasis, X'X = Q diag(l) Q', another `alpha` changes a diagonal only, so that all are compared there.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from frugal.errors import InputError, check_not_negative
from frugal.ridge.statistics import EPS, OUTPUTS_AT_ONCE, Moments, RidgeStatistics, add_gram


class RidgePath:
    """The solutions for all penalties from one eigendecomposition of the centred Gram matrix.

    Attributes:
        input_mean: [D]; target_mean: [K].
        gram: centred X'X, [D, D].
        eigenvalues: of `gram`, ascending, [D].
        basis: their eigenvectors as columns, [D, D].

    It keeps no copy of the statistics' part [K, D], which may be large: rows that are added to them later are refused.

    Raises:
        InputError: no statistics, fewer than two rows, no targets, or inputs that do not vary.

    Example:
        >>> import torch
        >>> inputs = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
        >>> path = RidgePath(RidgeStatistics.collect([(inputs, 2 * inputs + 1)], output_size=1))
        >>> path.solve(alpha=1e-9, dtype=torch.float32).tolist()
        [[2.0]]
    """

    def __init__(self, statistics: RidgeStatistics) -> None:
        n = int(given_statistics("statistics", statistics).count)
        if n < 2:
            raise InputError(f"{n} rows: ridge regression needs at least 2; collect statistics of some text first")
        if len(statistics.targets) == 0:
            raise InputError("statistics without targets: collect rows of inputs and targets to fit a readout")
        self.input_mean, self.target_mean = statistics.mean, statistics.target_mean
        self._moments, self._rows = statistics.about(self.input_mean, self.target_mean), n
        self.gram = n * statistics.covariance
        eigenvalues, self.basis = torch.linalg.eigh(self.gram)
        self.eigenvalues = eigenvalues.clamp_min(0)
        if not self.eigenvalues[-1] > 0:
            raise InputError("the inputs do not vary: a readout needs states that depend on the text")
        self.explained = torch.zeros_like(self.eigenvalues)  # diagonal of Q'X'Y Y'X Q
        for outputs in self._outputs():
            self.explained += (self.moments.cross(outputs) @ self.basis).square().sum(0)

    @property
    def moments(self) -> Moments:
        """The statistics about the means."""
        if int(self._moments.statistics.count) != self._rows:
            raise InputError("statistics: rows were added after this RidgePath was made; make another of them")
        return self._moments

    def condition(self, alpha: float) -> float:
        """Reciprocal condition number of the system that is solved; below about 1e-14 its solution is noise."""
        penalty = self._penalty(alpha)
        return float((self.eigenvalues[0] + penalty) / (self.eigenvalues[-1] + penalty))

    def generalised_cross_validation(self, alphas: Sequence[float]) -> Tensor:
        """n * residual / (n - degrees of freedom)^2 for each penalty (Golub, Heath and Wahba 1979).

        Of a direction's share of the targets' squares, e / l, a penalty leaves (penalty / (l + penalty))^2. What no
        penalty explains is a difference that may cancel: it counts as nothing where the rows are too few to leave
        anything, and else as no less than its rounding error, so that no penalty looks better than can be known.
        """
        n, largest = int(self.moments.statistics.count), self.eigenvalues[-1]
        varying = int((self.eigenvalues > len(self.eigenvalues) * EPS * largest).sum())
        rank = min(n - 1, varying)  # the mean takes one degree of freedom
        eigenvalues = self.eigenvalues[-rank:]
        shares = self.explained[-rank:] / eigenvalues
        rounding = EPS * (self.moments.squares + (shares * largest / eigenvalues).sum())
        unexplained = torch.zeros_like(largest)
        if rank < n - 1:
            unexplained = torch.maximum(self.moments.squares - shares.sum(), rounding)
        scores = []
        for alpha in alphas:
            left = self._penalty(alpha) / (eigenvalues + self._penalty(alpha))
            residual = unexplained + (shares * left.square()).sum()
            scores.append(n * residual / (n - 1 - rank + left.sum()) ** 2)
        return torch.stack(scores)

    def validation_errors(self, validation: RidgeStatistics, alphas: Sequence[float]) -> Tensor:
        """Mean squared error on other rows for each penalty, from their statistics alone; not below its rounding."""
        given_statistics("validation", validation)
        if validation.cross.shape != self.moments.statistics.cross.shape or not validation.count > 0:
            raise InputError("validation: must hold rows, of as many inputs and outputs as the training statistics")
        others = validation.about(self.input_mean, self.target_mean)
        agreement, fitted = torch.zeros_like(self.eigenvalues), torch.zeros_like(self.basis)
        for outputs in self._outputs():
            ours = self.moments.cross(outputs) @ self.basis
            agreement += (ours * (others.cross(outputs) @ self.basis)).sum(0)
            add_gram(fitted, ours)
        fitted *= self.basis.T @ others.gram @ self.basis
        errors = []
        for alpha in alphas:
            inverse = self._inverse(alpha)
            terms = torch.stack([others.squares, -2 * inverse @ agreement, inverse @ fitted @ inverse])
            errors.append(torch.maximum(terms.sum(), EPS * terms.abs().sum()))
        return torch.stack(errors) / validation.count

    def solve(self, alpha: float, dtype: torch.dtype) -> Tensor:
        """Weights [K, D] of the centred inputs for one penalty; the arithmetic is float64 whatever their dtype.

        The system is solved directly: at the smallest penalties that has a tenth of the eigenbasis's rounding error.
        Where rounding leaves it singular, the solution is that of least norm.
        """
        if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise InputError(f"dtype={dtype!r}: must be a floating-point type, such as torch.float32")
        system = self.gram + self._penalty(alpha) * torch.eye(len(self.gram)).to(self.gram)
        *factors, singular = torch.linalg.lu_factor_ex(system)
        inverse = torch.linalg.pinv(system, hermitian=True) if singular else None
        weights = torch.zeros_like(self.moments.statistics.cross, dtype=dtype)
        for outputs in self._outputs():
            cross = self.moments.cross(outputs)
            rows = torch.linalg.lu_solve(*factors, cross, left=False) if inverse is None else cross @ inverse
            weights[outputs] = rows.to(dtype)
        return weights

    def _penalty(self, alpha: float) -> Tensor:
        """What `alpha` adds to each eigenvalue."""
        check_not_negative("typical values lie in 1e-9 to 10", alpha=alpha)
        return alpha * self.eigenvalues.mean()

    def _inverse(self, alpha: float) -> Tensor:
        """Eigenvalues of the penalised Gram matrix's inverse, [D]."""
        return 1 / (self.eigenvalues + self._penalty(alpha))

    def _outputs(self) -> Iterator[Tensor]:
        """Indices of the outputs that occur, in pieces: most of a vocabulary does not, and its weights are zero."""
        statistics = self.moments.statistics
        pieces = zip(statistics.targets.split(OUTPUTS_AT_ONCE), statistics.cross.split(OUTPUTS_AT_ONCE), strict=True)
        occurring = torch.cat([(targets != 0) | (cross != 0).any(1) for targets, cross in pieces])
        yield from occurring.nonzero().squeeze(1).split(OUTPUTS_AT_ONCE)


def given_statistics(name: str, given: RidgeStatistics) -> RidgeStatistics:
    """The same; raises InputError where rows were given in their place."""
    if not isinstance(given, RidgeStatistics):
        raise InputError(
            f"{name} of type {type(given).__name__}: must be RidgeStatistics; of rows, "
            "RidgeStatistics.collect([(inputs, targets)], output_size) makes them"
        )
    return given
