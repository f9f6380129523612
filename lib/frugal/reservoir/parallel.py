"""One long stream run as many lanes at once: the echo state property turned into speed.

A reservoir that forgets its initial state may start anywhere a little early. The stream is cut into lanes; each lane
but the first starts from zeros, `washout` steps before its part begins, and all lanes advance together, as a batch.
How long the washout must be is measured on the stream itself; whether it was long enough is seen at every seam,
where the end of one lane and the washed-out start of the next are the same moment and must agree. Beyond a seam a
small difference may grow for a while before it is forgotten. So every lane is run on from the end of the one before
until both runs are the same to rounding: the first lane is the sequential run, and with it all others are.
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from frugal.errors import check_positive, check_whole
from frugal.reservoir.collector import StateCollector, empty, one_stream
from frugal.tensors import number_tensor

# Steps between two looks at how much is left of a difference.
STRIDE = 32
# Places in the stream where the forgetting is watched; the seams check all the others.
PLACES = 2
# A quarter more than was enough there divides what is left by a further tolerance ** -0.25.
MARGIN = 1.25
# Two runs of this relative distance, in units of the precision, are the same.
SAME = 16
# A lane should be this many times its washout, lest the lanes do mostly what is thrown away.
LANE_TO_WASHOUT = 3
# Who still remembers its start after this many steps is not worth waiting for.
LONGEST_WASHOUT = 2**13


@dataclass(frozen=True)
class ParallelStates:
    """The states of one stream and how they came about.

    Attributes:
        states: [T, N].
        state: the state [1, S] to go on from.
        lanes: how many lanes ran side by side; 1 is the plain sequential run.
        washout: steps each lane ran before its part; 0 for one lane.
        seam_error: largest relative distance between a lane's end and the next lane's start, before the steps beyond
            are made the same; infinite where they do not become so.
        reason: why it was run as one lane, else empty.
    """

    states: Tensor
    state: Tensor
    lanes: int
    washout: int
    seam_error: float
    reason: str


def run_parallel(
    reservoir: StateCollector,
    inputs: Tensor | np.ndarray,
    tolerance: float = 1e-5,
    state: Tensor | np.ndarray | None = None,
    lanes: int | None = None,
) -> ParallelStates:
    """Run one stream `inputs` [T, d] in lanes, so that states are within `tolerance` of the sequential run's.

    The tolerance is relative: Euclidean distance of a state over its length. In float32 less than 1e-6 cannot be
    asked for, and where differences grow for a while, so do those of rounding, in lanes as in the sequential run.
    Where the reservoir does not forget within the stream, or two lanes disagree where they meet, the stream is run
    sequentially, with a warning. A stream too long for memory can be run piece by piece, passing `state` on.

    Args:
        reservoir: or a stack of them.
        state: [1, S] to go on from; zeros by default.
        lanes: how many; by default as many as this machine and the washout make worthwhile.

    Raises:
        InputError: the inputs are not one stream, or the tolerance is not positive.

    Example:
        >>> import torch
        >>> from frugal.reservoir import Reservoir
        >>> stream = torch.rand(4000, 1)
        >>> fast = run_parallel(Reservoir(1, 50, spectral_radius=0.5), stream, lanes=4)
        >>> fast.lanes, fast.states.shape, fast.seam_error <= 1e-5
        (4, torch.Size([4000, 50]), True)
    """
    inputs = one_stream(inputs)
    check_positive("typical values lie in 1e-6 to 1e-3", tolerance=tolerance)
    check_whole(lanes=1 if lanes is None else lanes)
    state = reservoir.start() if state is None else number_tensor("state", state)
    wanted = lanes_worthwhile(reservoir) if lanes is None else lanes
    if wanted == 1:
        return sequential(reservoir, inputs, state, "on this device a single lane is as fast")
    if longest_washout(inputs) < STRIDE:
        return sequential(reservoir, inputs, state, f"a stream of {len(inputs)} steps is too short to cut")
    washout = measured_washout(reservoir, inputs, tolerance)
    if washout is None:
        reason = f"the reservoir does not forget to within {tolerance:g} in {longest_washout(inputs)} steps"
        warnings.warn(f"run sequentially: {reason}", stacklevel=2)
        return sequential(reservoir, inputs, state, reason)
    lanes = min(wanted, len(inputs) // (LANE_TO_WASHOUT * washout))
    if lanes < 2:
        return sequential(reservoir, inputs, state, f"the stream is short beside a washout of {washout} steps")
    result = in_lanes(reservoir, inputs, state, lanes, washout)
    if not result.seam_error <= tolerance:
        reason = f"lanes disagree by {result.seam_error:.1e} where they meet or beyond"
        warnings.warn(f"run sequentially: {reason}, more than the tolerance {tolerance:g}", stacklevel=2)
        return sequential(reservoir, inputs, state, reason)
    return result


def in_lanes(reservoir: StateCollector, inputs: Tensor, state: Tensor, lanes: int, washout: int) -> ParallelStates:
    """Run `inputs` [T, d] after `state` [1, S] in `lanes` lanes, whatever comes of it."""
    steps = len(inputs)
    length = steps // lanes
    begin = steps - lanes * length  # the few steps that do not divide go first, alone
    states = empty((steps, reservoir.size), reservoir.like)
    first, state = reservoir.run(inputs[None, :begin], state)
    states[:begin] = first[0]

    # Lane k runs over begin + k length ..; its washout window ends there. Both are views, nothing is copied.
    early = inputs[begin + length - washout : steps - length].unfold(0, washout, length).transpose(1, 2)
    _, washed = reservoir.run(early)
    parts = inputs[begin:].unflatten(0, (lanes, length))
    ends = reservoir.run_into(states[begin:].unflatten(0, (lanes, length)), parts, torch.cat((state, washed)))
    seam_error = float(relative_distance(washed, ends[:-1]).max())
    if not joined(reservoir, parts[1:], ends[:-1], states[begin:].unflatten(0, (lanes, length))[1:]):
        seam_error = math.inf
    return ParallelStates(states, ends[-1:], lanes, washout, seam_error, reason="")


def joined(reservoir: StateCollector, parts: Tensor, starts: Tensor, states: Tensor) -> bool:
    """Run on from `starts` until the states are those written, to rounding, and overwrite them till then.

    Says whether they became the same before the lanes' last steps, which the next lanes start from.
    """
    same = SAME * torch.finfo(states.dtype).eps
    for part, written in zip(parts.split(STRIDE, 1), states.split(STRIDE, 1), strict=True):
        rows, starts = reservoir.run(part, starts)
        apart = relative_distance(written[:, -1], rows[:, -1]).max()
        written.copy_(rows)
        if apart <= same:
            return True
    return False


def sequential(reservoir: StateCollector, inputs: Tensor, state: Tensor, reason: str) -> ParallelStates:
    """Run `inputs` [T, d] after `state` [1, S] as one lane."""
    states, state = reservoir.run(inputs.unsqueeze(0), state)
    return ParallelStates(states[0], state, lanes=1, washout=0, seam_error=0.0, reason=reason)


def measured_washout(reservoir: StateCollector, inputs: Tensor, tolerance: float) -> int | None:
    """Steps after which zeros and a state from elsewhere in the stream are within `tolerance`, and a margin.

    None where that takes longer than would leave room for two lanes.
    """
    most = longest_washout(inputs)
    places = [round(i * (len(inputs) - most) / PLACES) for i in range(PLACES)]
    windows = torch.stack([inputs[place : place + most] for place in places])  # [places, most, d]
    _, elsewhere = reservoir.run(windows[:, :STRIDE].flip(0))
    starts = torch.cat((torch.zeros_like(elsewhere), elsewhere))
    pieces = reservoir.chunks(torch.cat((windows, windows)), starts, length=STRIDE)
    for done, (_, state) in enumerate(pieces, start=1):
        from_zeros, from_elsewhere = state.chunk(2)
        if relative_distance(from_zeros, from_elsewhere).max() <= tolerance:
            return min(round(MARGIN * done * STRIDE), most)
    return None


def longest_washout(inputs: Tensor) -> int:
    """Steps of a washout that leaves room for two lanes."""
    return min(len(inputs) // (2 * LANE_TO_WASHOUT), LONGEST_WASHOUT)


def relative_distance(states: Tensor, reference: Tensor) -> Tensor:
    """Euclidean distance of each row of [B, S] from the reference's, over the length of that."""
    smallest = torch.finfo(reference.dtype).tiny
    return (states - reference).norm(dim=-1) / reference.norm(dim=-1).clamp_min(smallest)


def lanes_worthwhile(reservoir: StateCollector) -> int:
    """As many as keep the device busy: what a thread takes at a time, for each thread; a GPU takes all it gets."""
    if reservoir.like.device.type != "cpu":
        return 512
    return reservoir.lanes_in_step * torch.get_num_threads()
