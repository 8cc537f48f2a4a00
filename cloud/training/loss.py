"""How far a student's answer is from its teacher's."""

from torch import Tensor
from torch.nn import functional


def distillation_loss(
    student: Tensor, teacher: Tensor, *, temperature: float, hard: float
) -> Tensor:
    """Mean over [n, classes] logits, in nats.

    (1 - hard) * T^2 * KL(softmax(teacher / T) || softmax(student / T)), by which gradients keep
    their size whatever T is (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015),
    plus hard * cross-entropy with the teacher's first choice.

    >>> import torch
    >>> logits = torch.tensor([[2.0, 0.0]])
    >>> distillation_loss(logits, logits, temperature=2.0, hard=0.0).item()
    0.0
    """
    soft = functional.kl_div(
        functional.log_softmax(student / temperature, 1),
        functional.log_softmax(teacher / temperature, 1),
        reduction="batchmean",
        log_target=True,
    )
    loss = (1 - hard) * temperature**2 * soft
    if hard:
        loss = loss + hard * functional.cross_entropy(student, teacher.argmax(1))
    return loss
