import pytest
import torch

from hybridge.cloud.training.loss import distillation_loss


def test_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 0.0]])
    p = torch.softmax(teacher / 2, 1)
    wanted = 4 * float((p * (p.log() - torch.tensor(0.5).log())).sum())
    found = distillation_loss(student, teacher, temperature=2.0, hard=0.0)
    assert float(found) == pytest.approx(wanted, rel=1e-6)


def test_the_hard_part_counts_the_first_choice_only() -> None:
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    for teacher in (torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.tensor([[0.1, 0.0], [0.0, 0.1]])):
        found = distillation_loss(student, teacher, temperature=3.0, hard=1.0)
        assert float(found) == pytest.approx(0.313262, abs=1e-6)  # ln(1 + 1/e)


def test_both_parts_are_weighed() -> None:
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    parts = [distillation_loss(student, teacher, temperature=2.0, hard=h) for h in (0.0, 1.0, 0.25)]
    assert float(parts[2]) == pytest.approx(0.75 * float(parts[0]) + 0.25 * float(parts[1]))


def test_gradients_keep_their_size_whatever_the_temperature() -> None:
    sizes = []
    for temperature in (10.0, 100.0):
        student = torch.zeros(1, 3, requires_grad=True)
        teacher = torch.tensor([[1.0, 0.0, -1.0]])
        distillation_loss(student, teacher, temperature=temperature, hard=0.0).backward()
        assert student.grad is not None
        sizes.append(float(student.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)
