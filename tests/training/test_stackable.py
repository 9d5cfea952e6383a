"""Which architectures run as a stack, by which way, and why others do not."""

import pytest
import torch
from torch import nn

from fedunlearn.models.flat import FlatModel
from fedunlearn.training import why_not_stackable
from fedunlearn.training.flat_stack import FlatStack
from fedunlearn.training.grouped import Grouped
from fedunlearn.training.stackable import NotStackableError, Vmapped, stack_forward
from tests.training.stacks import CLASSES, generator, network

SHAPE = (2, 8, 8)


class Tied(nn.Module):
    """One layer used twice, under two names."""

    def __init__(self):
        super().__init__()
        self.first = self.second = nn.Linear(128, 128, bias=False)
        self.out = nn.Linear(128, CLASSES)

    def forward(self, images):
        return self.out(self.second(torch.relu(self.first(images.flatten(1)))))


class Pooled(nn.Module):
    """Means over pixels, and a residual sum."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1, dilation=1, groups=2)
        self.out = nn.Linear(2, CLASSES)

    def forward(self, images):
        return self.out((images + self.conv(images)).mean((2, 3)))


class OnlyInTraining(nn.Module):
    """Computes something else once it is evaluated, and has a weight that it never uses."""

    def __init__(self):
        super().__init__()
        self.out, self.unused = nn.Linear(128, CLASSES), nn.Linear(2, 3)

    def forward(self, images):
        return self.out(images.flatten(1)) * (2 if self.training else 1)


class Subclass(nn.Linear):
    def forward(self, x):
        return super().forward(2 * x)


class OverRows(nn.Module):
    """What it says of an image depends on the others of the batch."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(128, CLASSES)

    def forward(self, images):
        x = images.flatten(1)
        return self.out(x - x.mean(0))


class Branching(nn.Module):
    """Looks at its numbers before it computes."""

    def __init__(self):
        super().__init__()
        self.norm, self.out = nn.LayerNorm(128), nn.Linear(128, CLASSES)

    def forward(self, images):
        images = self.norm(images.flatten(1))
        return self.out(images.flatten(1)) if images.sum() > 1e9 else self.out(-images.flatten(1))


class Drawing(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(128, CLASSES)

    def forward(self, images):
        x = images.flatten(1)
        return self.out(x + torch.randn_like(x))


def head(width=128):
    return [nn.Flatten(), nn.Linear(width, CLASSES)]


GROUPED = {
    "mlp": lambda: network("mlp", channels=2).module,
    "small-cnn": lambda: network("small-cnn", channels=2).module,
    "resnet18": lambda: network("resnet18", channels=2).module,
    "tied": Tied,
    "pooled": Pooled,
    "a single layer": lambda: nn.Sequential(*head()),
    "strided, dilated": lambda: nn.Sequential(
        nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=2), *head(4 * 3 * 6)
    ),
    "padding by name": lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding="same"), *head(256)),
    "norm without weights": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.GroupNorm(2, 4, affine=False), *head(256)
    ),
    "dropout of nothing": lambda: nn.Sequential(nn.Dropout(0.0), *head()),
    "only in training": OnlyInTraining,
    "max-pool": lambda: nn.Sequential(nn.Conv2d(2, 4, 1), nn.MaxPool2d(2), nn.GELU(), *head(64)),
}
VMAPPED = {
    "layer norm": lambda: nn.Sequential(nn.Flatten(), nn.LayerNorm(128), nn.Linear(128, CLASSES)),
    "reflected padding": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), *head(256)
    ),
    "over channels": lambda: nn.Sequential(nn.Conv2d(2, 4, 1), nn.Softmax(dim=1), *head(256)),
    "a subclass": lambda: nn.Sequential(nn.Flatten(), Subclass(128, CLASSES)),
    "a transposed convolution": lambda: nn.Sequential(nn.ConvTranspose2d(2, 1, 3), *head(100)),
}
REFUSED = {
    "statistics": (
        lambda: nn.Sequential(nn.BatchNorm2d(2), *head()),
        r"layer '0' \(BatchNorm2d\) has the buffer",
    ),
    "batch norm": (
        lambda: nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), *head()),
        r"layer '0' \(BatchNorm2d\) looks at a whole batch",
    ),
    "dropout": (
        lambda: nn.Sequential(nn.Dropout(0.5), *head()),
        r"layer '0' \(Dropout\) draws random numbers",
    ),
    "nothing to train": (lambda: nn.Sequential(nn.Flatten()), "the model has no parameters"),
}
REFUSED_WHEN_TRIED = {
    "over rows": (OverRows, "OverRows does not run as a stack: stacked models give different outputs"),
    "branching": (Branching, "Branching does not run as a stack: .*[Dd]ata-dependent control flow"),
    "drawing": (Drawing, "Drawing does not run as a stack: .*random"),
    "another image": (lambda: nn.Sequential(*head(99)), "Sequential does not run as a stack: .*"),
}


def built(make):
    torch.manual_seed(0)
    return make().double()


def logits_alone(module, images, vectors):
    """Logits (models, classes, rows), model by model."""
    found = []
    model = FlatModel(module, dtype=torch.float64)
    for k, vector in enumerate(vectors):
        model.load(vector)
        found.append(module(images[:, k]).t())
    return torch.stack(found).detach()


@pytest.mark.parametrize(
    ("make", "kind"),
    [pytest.param(make, Grouped, id=name) for name, make in GROUPED.items()]
    + [pytest.param(make, Vmapped, id=name) for name, make in VMAPPED.items()],
)
@pytest.mark.parametrize("num_models", [1, 3])
def test_logits_and_gradients_are_those_of_each_alone(make, kind, num_models):
    module = built(make)
    assert why_not_stackable(module) == why_not_stackable(module, SHAPE) == ""
    forward = stack_forward(module.eval(), SHAPE)
    assert type(forward) is kind
    stack = FlatStack(module.parameters())
    vectors = 0.3 * torch.randn(num_models, stack.num_parameters, generator=generator(1), dtype=torch.float64)
    images = torch.randn(5, num_models, *SHAPE, generator=generator(2), dtype=torch.float64)
    expected = logits_alone(module.train(), images, vectors)
    stack.load(vectors, num_models)
    stack.open(0, num_models)
    forward.load(stack.weights)
    logits = forward(images)
    torch.testing.assert_close(logits.detach(), expected, rtol=1e-9, atol=1e-9)
    stack.backward(logits.square().sum((1, 2)))
    model = FlatModel(module, dtype=torch.float64)
    for k in range(num_models):
        model.load(vectors[k])
        model.zero_grad()
        module(images[:, k]).square().sum().backward()
        torch.testing.assert_close(stack.gradient[k], model.gradient, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_stacked_is_refused_by_name(make, reason):
    module = built(make)
    told = why_not_stackable(module)
    with pytest.raises(NotStackableError, match=reason) as error:
        stack_forward(module, SHAPE)
    assert told == str(error.value) == why_not_stackable(module, SHAPE)
    assert "\n" not in told


@pytest.mark.parametrize(("make", "reason"), REFUSED_WHEN_TRIED.values(), ids=list(REFUSED_WHEN_TRIED))
def test_what_turns_out_not_to_work_is_refused_when_tried(make, reason):
    module = built(make)
    assert why_not_stackable(module) == "", "from its layers alone nobody would know"
    with pytest.raises(NotStackableError, match=reason) as error:
        stack_forward(module, SHAPE)
    assert why_not_stackable(module, SHAPE) == str(error.value)
    assert "\n" not in str(error.value)


def test_trying_it_out_leaves_no_trace():
    module = built(GROUPED["small-cnn"]).eval()
    before = [p.clone() for p in module.parameters()]
    state = torch.get_rng_state()
    stack_forward(module, SHAPE)
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert not module.training
