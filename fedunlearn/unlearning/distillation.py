"""What methods with a teacher share: how far a student's outputs are from its teacher's."""

import torch.nn.functional as F
from torch import Tensor


def divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return τ² · KL(softmax(teacher/τ) ‖ softmax(student/τ)), the mean over a batch.

    τ² makes up for what τ takes from the gradient (Hinton et al. 2015, arXiv 1503.02531). The divergence of equal
    logits is 0, to the last bit.

    Parameters
    ----------
    student, teacher : Tensor, shape (n, classes)
        Logits.
    """
    student, teacher = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2
