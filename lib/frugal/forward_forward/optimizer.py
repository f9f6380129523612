"""How the weights follow their gradients: AdamW, with a learning rate of its own for the head."""

from typing import Any

from torch.optim import AdamW, Optimizer

from frugal.forward_forward.net import ForwardForwardNet

HEAD_RATE = 10.0  # times the layers' learning rate: the head starts at zero and its loss is convex
HEAD_DECAY = 3e-3


def net_optimizer(
    net: ForwardForwardNet, learning_rate: float, head_rate: float = HEAD_RATE, head_decay: float = HEAD_DECAY
) -> Optimizer:
    """Of the layers and, with `head_rate` times their learning rate, of the head."""
    return adamw(
        [
            {"params": net.layers, "lr": learning_rate, "weight_decay": 0.0},
            {"params": list(net.head.parameters()), "lr": head_rate * learning_rate, "weight_decay": head_decay},
        ]
    )


def adamw(groups: list[dict[str, Any]]) -> Optimizer:
    """AdamW keeps each weight's past for itself and is not clipped: it carries nothing from one layer to another."""
    return AdamW(groups, fused=True)
