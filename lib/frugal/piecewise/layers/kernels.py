"""Three ways to compute y_bo = sum_i sum_v phi_v(x_bi) W_ivo, which agree to rounding.

dense      expand every input into its V basis values, then one matrix product. Best for few values per edge. Needs
           finite weights: it multiplies those that a sample does not touch by zero.
gather     add up only the rows of W that a sample touches, as an embedding bag does. Its cost does not depend on the
           number of segments.
reference  the definition: gather the touched rows, multiply, sum. Slow and large; it is there to be compared with.
"""

import warnings
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.utils.checkpoint import checkpoint

from frugal.errors import InputError
from frugal.piecewise.layers.basis import Basis, LocalBasis, PiecewiseBasis, lagrange, precise

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")  # all we use of it is tested

Kernel = Literal["auto", "dense", "gather", "reference"]

# Expanded inputs beyond this are made chunk by chunk, and once more in the backward pass instead of being kept.
CHUNK_BYTES = 2**26
# Weights that fit here are walked over by the whole batch before the next ones: half of a usual second-level cache.
CACHE_BYTES = 2**20
# The matrix product works on all V values, gathering on the few active ones, each of which costs it this much more.
DENSE_VALUES_PER_ACTIVE_VALUE = 4


def check_kernel(kernel: Kernel, basis: Basis, form: str) -> None:
    if kernel not in get_args(Kernel):
        raise InputError(f"kernel={kernel!r}: must be one of {', '.join(get_args(Kernel))}")
    if kernel in ("gather", "reference") and not isinstance(basis, LocalBasis):
        raise InputError(f"kernel={kernel!r}: needs a basis with few active functions; use 'dense' for Fourier series")
    if kernel == "gather" and form == "product":
        raise InputError("kernel='gather': adds edges up, but form='product' multiplies them; use 'auto'")


def choose_kernel(kernel: Kernel, basis: Basis) -> Kernel:
    """Return the kernel that 'auto' stands for."""
    if kernel != "auto":
        return kernel
    if not isinstance(basis, LocalBasis):
        return "dense"
    active = basis.cell_nodes.shape[1]
    return "gather" if basis.values_per_edge > DENSE_VALUES_PER_ACTIVE_VALUE * active else "dense"


def neuron_sums(basis: Basis, x: Tensor, weight: Tensor, kernel: Kernel) -> Tensor:
    """Return y [B, O] for inputs x [B, I] (or [B, I, D]) and weights [I, V, O]."""
    kernel = choose_kernel(kernel, basis)
    if kernel == "dense":
        return in_chunks(lambda part: _dense(basis, part, weight), x, weight.shape[0] * weight.shape[1])
    assert isinstance(basis, LocalBasis)
    function = _gather if kernel == "gather" else _reference
    width = weight.shape[0] * basis.cell_nodes.shape[1] * (weight.shape[2] if kernel == "reference" else 1)
    return in_chunks(lambda part: function(basis, part, weight), x, width)


def code_sums(basis: PiecewiseBasis, codes: Tensor, weight: Tensor) -> Tensor:
    """Return y [B, O] for integer codes [B, I], where code c stands for the middle of segment c.

    The values of the basis are the same for every code, so that this is a sum of embeddings: nothing to differentiate
    but the rows.
    """
    middle = weight.new_zeros(1, dtype=precise(weight.dtype))
    values = torch.stack(lagrange(middle, basis.local_nodes), dim=-1)
    return _sum_of_touched(weight, values.expand(*codes.shape, -1), codes.long(), basis.cell_nodes.to(codes.device))


def neuron_products(basis: Basis, x: Tensor, weight: Tensor, alpha: float, kernel: Kernel) -> Tensor:
    """Return `product_of_edges` of the edges' outputs, [B, O]. Gathering is no way to it: it sums the edges."""
    dense = choose_kernel(kernel, basis) == "dense"

    def product(part: Tensor) -> Tensor:
        if dense or not isinstance(basis, LocalBasis):
            return product_of_edges(torch.einsum("biv,ivo->bio", basis.expand(part).to(weight.dtype), weight), alpha)
        return product_of_edges(_touched_edges(basis, part, weight), alpha)

    inputs, values_per_edge, outputs = weight.shape
    return in_chunks(product, x, inputs * (values_per_edge + 2 * outputs))


def product_of_edges(edges: Tensor, alpha: float) -> Tensor:
    """Join edge outputs [B, I, ...] into neurons; alpha=0 takes the linear part away, alpha=1 leaves all of it."""
    return (1 + edges).prod(dim=1) - 1 - (1 - alpha) * edges.sum(dim=1)


def in_chunks(function: Callable[[Tensor], Tensor], x: Tensor, width: int) -> Tensor:
    """Apply `function` to as many rows of `x` at once as CHUNK_BYTES allow, at `width` numbers for each row."""
    rows = max(1, CHUNK_BYTES // max(1, width * x.element_size()))
    if x.shape[0] <= rows:
        return function(x)
    if torch._C._are_functorch_transforms_active():  # they cannot look into a checkpoint
        return torch.cat([function(part) for part in x.split(rows)])
    return torch.cat([checkpoint(function, part, use_reentrant=False) for part in x.split(rows)])


def _dense(basis: Basis, x: Tensor, weight: Tensor) -> Tensor:
    inputs = torch.cat(basis.columns(x), dim=-1)  # [B, V * I]
    return inputs.to(weight.dtype) @ weight.transpose(0, 1).flatten(0, 1)


def _reference(basis: LocalBasis, x: Tensor, weight: Tensor) -> Tensor:
    return _touched_edges(basis, x, weight).sum(dim=1)


def _touched_edges(basis: LocalBasis, x: Tensor, weight: Tensor) -> Tensor:
    """Return every edge's output, [B, I, O], from copies of the rows it touches."""
    cell, values = basis.active(x)
    inputs = torch.arange(weight.shape[0], device=cell.device)[:, None]
    rows = weight[inputs, basis.cell_nodes.to(x.device)[cell]]  # [B, I, m, O]
    return torch.einsum("bim,bimo->bio", values.to(weight.dtype), rows)


def _gather(basis: LocalBasis, x: Tensor, weight: Tensor) -> Tensor:
    cell, values = basis.active(x)
    return _sum_of_touched(weight, values, cell, basis.cell_nodes.to(x.device))


def _sum_of_touched(weight: Tensor, values: Tensor, cell: Tensor, cell_nodes: Tensor) -> Tensor:
    """Return [B, O], under autocast in its format, as the matrix products of the other kernels do."""
    kind = weight.device.type
    available = torch.amp.is_autocast_available(kind)  # and only then may be asked for
    if available and weight.dtype == torch.float32 and torch.is_autocast_enabled(kind):
        weight = weight.to(torch.get_autocast_dtype(kind))
    return _GatherSum.of(weight, values.to(weight.dtype), Touched(cell, cell_nodes, weight.shape[1]))


@dataclass(frozen=True)
class Touched:
    """Which weights a batch touches: an edge input in cell `cell` [B, I] uses the weights `cell_nodes` [cells, m]."""

    cell: Tensor
    cell_nodes: Tensor
    values_per_edge: int

    @cached_property
    def rows(self) -> Tensor:
        """Touched rows of the weights seen as one table [I * V, O]: int32 [B, I, m], half the traffic of int64."""
        inputs = self.cell.shape[1]
        index = torch.int32 if inputs * self.values_per_edge < 2**31 else torch.int64
        first = torch.arange(inputs, device=self.cell.device, dtype=index)[:, None] * self.values_per_edge
        return self.cell_nodes.to(index)[self.cell] + first

    def blocks(self, outputs: Tensor) -> list[slice]:
        """Return slices of the inputs whose weights to `outputs` [B, O] fit into a CPU core's cache, for all samples.

        A GPU takes all inputs at once.
        """
        inputs = self.cell.shape[1]
        bytes_per_input = self.values_per_edge * outputs.shape[1] * outputs.element_size()
        step = max(1, CACHE_BYTES // bytes_per_input) if outputs.device.type == "cpu" else inputs
        return [slice(begin, begin + step) for begin in range(0, inputs, step)]

    def by_cell(self) -> tuple[Tensor, Tensor]:
        """Return, for each input, the samples ordered by cell [I, B] and how many each cell has [I, cells]."""
        cell, cells = self.cell.t(), len(self.cell_nodes)
        if cell.device.type == "cpu":  # numpy sorts short integers by radix, ten times faster than torch's sort
            keys = cell.numpy().astype(np.min_scalar_type(cells))
            order = torch.from_numpy(np.argsort(keys, axis=1, kind="stable"))
        else:
            order = torch.argsort(cell, dim=1, stable=True)
        first = torch.arange(len(cell), device=cell.device)[:, None] * cells
        return order, torch.bincount((cell + first).flatten(), minlength=len(cell) * cells).view(len(cell), cells)


# The layer is linear in the weights W, in the basis values and, in the backward pass, in the output's gradient G. So
# there are three sums over the touched entries, each of which leaves one of the three out, and the gradient of each is
# made of the other two. That gives derivatives of every order, which second-order optimisers need.


class _TouchedSum(torch.autograd.Function):
    """One of these sums, linear in both of its tensors."""

    @staticmethod
    @abstractmethod
    def plain(first: Tensor, second: Tensor, touched: Touched) -> Tensor:
        """The same sum, of copies of the touched rows."""

    @classmethod
    def of(cls, first: Tensor, second: Tensor, touched: Touched) -> Tensor:
        """The sum; as `plain` under function transforms and for batched gradients, which `forward` does not know."""
        batched = torch._C._dispatch_keys(first) | torch._C._dispatch_keys(second)
        plain = torch._C._are_functorch_transforms_active() or batched.has("Batched")
        return (cls.plain if plain else cls.apply)(first, second, touched)

    @staticmethod
    def jvp(ctx: Any, first: Tensor, second: Tensor, _: None) -> Tensor:
        a, b = ctx.saved_tensors
        return ctx.kind.of(first, b, ctx.touched) + ctx.kind.of(a, second, ctx.touched)


class _GatherSum(_TouchedSum):
    """W [I, V, O], values [B, I, m] -> y [B, O]: the sum of the touched rows."""

    @staticmethod
    def plain(weight: Tensor, values: Tensor, touched: Touched) -> Tensor:
        return (values.unsqueeze(-1) * weight.reshape(-1, weight.shape[2])[touched.rows.long()]).sum(dim=(1, 2))

    @staticmethod
    def forward(ctx: FunctionCtx, weight: Tensor, values: Tensor, touched: Touched) -> Tensor:
        _keep(ctx, _GatherSum, weight, values, touched)
        table, result = weight.flatten(0, 1), weight.new_zeros(len(values), weight.shape[2])
        for part in touched.blocks(result):
            result += torch.nn.functional.embedding_bag(
                touched.rows[:, part].flatten(1), table, mode="sum", per_sample_weights=values[:, part].flatten(1)
            )
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weight, values = ctx.saved_tensors
        return _gradients(ctx, (_ScatterSum, values, gradient), (_SampledProduct, weight, gradient))


class _ScatterSum(_TouchedSum):
    """Values [B, I, m], G [B, O] -> [I, V, O]: each touched row collects the value times the sample's G."""

    @staticmethod
    def plain(values: Tensor, gradient: Tensor, touched: Touched) -> Tensor:
        (_, inputs, _), outputs = values.shape, gradient.shape[1]
        added = (values.unsqueeze(-1) * gradient[:, None, None]).reshape(-1, outputs)
        table = gradient.new_zeros(inputs * touched.values_per_edge, outputs)
        return table.index_add(0, touched.rows.flatten().long(), added).view(inputs, -1, outputs)

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, gradient: Tensor, touched: Touched) -> Tensor:
        _keep(ctx, _ScatterSum, values, gradient, touched)
        (_, inputs, active), outputs = values.shape, gradient.shape[1]
        order, counts = touched.by_cell()
        first = torch.arange(inputs, device=order.device) * touched.values_per_edge
        result = gradient.new_zeros(inputs * touched.values_per_edge, outputs)
        for part in touched.blocks(gradient):
            samples = order[part].expand(active, -1, -1)  # [m, i, B]
            weights = values[:, part].permute(2, 1, 0).gather(2, samples)
            sizes = counts[part].expand(active, -1, -1).flatten()
            sums = torch.nn.functional.embedding_bag(
                samples.flatten(),
                gradient,
                sizes.cumsum(0) - sizes,
                mode="sum",
                per_sample_weights=weights.flatten(),
            )
            rows = first[part, None] + touched.cell_nodes.t()[:, None]  # [m, i, cells]
            result.index_add_(0, rows.flatten(), sums)
        return result.view(inputs, touched.values_per_edge, outputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        values, outputs = ctx.saved_tensors
        return _gradients(ctx, (_SampledProduct, gradient, outputs), (_GatherSum, gradient, values))


class _SampledProduct(_TouchedSum):
    """W [I, V, O], G [B, O] -> [B, I, m]: the scalar product of each touched row with the sample's G."""

    @staticmethod
    def plain(weight: Tensor, gradient: Tensor, touched: Touched) -> Tensor:
        return (gradient[:, None, None] * weight.reshape(-1, weight.shape[2])[touched.rows.long()]).sum(dim=-1)

    @staticmethod
    def forward(ctx: FunctionCtx, weight: Tensor, gradient: Tensor, touched: Touched) -> Tensor:
        _keep(ctx, _SampledProduct, weight, gradient, touched)
        table, dtype = weight.flatten(0, 1), gradient.dtype
        if dtype in (torch.float16, torch.bfloat16):  # for which there is no sampled product
            table, gradient = table.float(), gradient.float()
        parts = []
        for part in touched.blocks(gradient):
            rows = touched.rows[:, part]
            pattern = torch.sparse_csr_tensor(
                torch.arange(len(rows) + 1, device=rows.device, dtype=rows.dtype) * (rows.shape[1] * rows.shape[2]),
                rows.flatten(),
                gradient.new_zeros(rows.numel()),
                size=(len(rows), len(table)),
                check_invariants=False,
            )
            parts.append(torch.sparse.sampled_addmm(pattern, gradient, table.t(), beta=0).values().view(rows.shape))
        return torch.cat(parts, dim=1).to(dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weight, outputs = ctx.saved_tensors
        return _gradients(ctx, (_ScatterSum, gradient, outputs), (_GatherSum, weight, gradient))


def _keep(ctx: Any, kind: type[_TouchedSum], first: Tensor, second: Tensor, touched: Touched) -> None:
    ctx.save_for_backward(first, second)
    ctx.save_for_forward(first, second)
    ctx.kind, ctx.touched = kind, touched


def _gradients(ctx: Any, *sums: tuple[Any, Tensor, Tensor]) -> tuple[Tensor | None, Tensor | None, None]:
    """Of both tensors that a sum was made of, each by a sum of its own where it is asked for."""
    pairs = zip(sums, ctx.needs_input_grad, strict=False)
    first, second = (kind.of(a, b, ctx.touched) if needed else None for (kind, a, b), needed in pairs)
    return first, second, None
