"""AdaHessian, with one sentence where a loss has no curvature for it. By itself, because its import takes seconds."""

from typing import Any

import pytorch_optimizer

from frugal.errors import InputError


class AdaHessian(pytorch_optimizer.AdaHessian):
    """Steps divided by an estimate of the loss's curvature (Yao et al., 2021), which takes differentiable gradients."""

    second_order = True

    def step(self, *arguments: Any, **settings: Any) -> Any:
        """Take one step.

        Raises:
            InputError: a weight's gradient does not depend on the weights, or was made so that it cannot be told.
        """
        try:
            return super().step(*arguments, **settings)
        except RuntimeError as error:  # torch cannot differentiate a gradient
            raise InputError(
                f"adahessian: the loss has no second derivative in some weights ({error}); take another optimiser"
            ) from error
