"""A plain loop that trains networks, such as Experts and MoLT, on features in memory."""

from __future__ import annotations

import torch

from robusttune.models.balance import Balance
from robusttune.models.base import FusionNetwork
from robusttune.models.fitted import TrainingFeatures
from robusttune.models.losses import CorrelationLoss
from robusttune.tasks.balanced_loss import BalancedLoss
from robusttune.types import Encoded, Facts

STEPS, BATCH = 1500, 64
RATE, DECAY, SMOOTHING, LARGEST_GRADIENT = 2e-3, 0.05, 0.2, 1.0
CORRELATION = 0.1  # weight of the correlation loss, for networks with latents to correlate


def train(network: FusionNetwork, samples: TrainingFeatures, outputs: tuple[Encoded, Encoded], facts: Facts) -> None:
    """Train a network on complete samples, on their images alone and on their texts alone in every step.

    Args:
        network: Network, which is changed.
        samples: Training samples.
        outputs: Outputs of both encoders for these samples.
        facts: Class frequencies, towards which labels of multi-label data are smoothed.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    loss_of = BalancedLoss(Balance(), facts, SMOOTHING)
    correlation = CorrelationLoss(*network.view_shape)
    network.train()
    for _ in range(STEPS):
        batch = torch.randperm(len(samples.label))[:BATCH]
        has_image, has_text = samples.present[batch].T
        pairs, absent = has_image & has_text, torch.zeros_like(has_image)
        rows, shown = torch.arange(len(batch)).repeat(3), ([has_image, pairs, absent], [has_text, absent, pairs])
        image, text = (_rows(output, batch) for output in outputs)
        fused = network.forward_pairs(image, text, rows, rows, *(torch.cat(each) for each in shown))
        complete, of_image, of_text = loss_of(fused.logits, torch.cat([samples.label[batch]] * 3)).chunk(3)
        optimizer.zero_grad()
        loss = torch.where(pairs, complete / 2 + of_image / 4 + of_text / 4, complete).mean()
        if network.view_shape[0]:
            whole = (views[:, : len(batch)] for views in fused[1:])
            loss = loss + CORRELATION * correlation(*whole, pairs)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()


def _rows(output: Encoded, rows: torch.Tensor) -> Encoded:
    return output.map(lambda values: values[rows])
