"""SCRUB: the student moves, the teacher does not, and rewinding picks the epoch that errs as on unseen data."""

from dataclasses import replace

import pytest
import torch

from fedunlearn.errors import UserError
from fedunlearn.randomness import torch_generator
from fedunlearn.unlearning import Conditions, Examples, method
from fedunlearn.unlearning.distillation import divergence
from fedunlearn.unlearning.rewind import matched_error, mistakes, nearest, split_held_out
from fedunlearn.unlearning.scrub import Scrub
from tests.oracles import unlearning as oracle
from tests.oracles import unlearning_teachers as teachers
from tests.unlearning import tiny

QUICK = Scrub(epochs=3, msteps=2, alpha=0.5, temperature=2.0, batch_size=4, forget_batch_size=3, lr=0.1)
FORGET, RETAIN = tiny.examples(7, 1), tiny.examples(10, 2)


def epochs_of(settings, retain=RETAIN, seed=3):
    """Return what the oracle learns: a list of F's batches, where there are any, and one of R's, per epoch."""
    shuffling, found = torch.Generator().manual_seed(seed), []
    for epoch in range(settings.epochs):
        parts = []
        for part, size in ((FORGET, settings.forget_batch_size), (retain, settings.batch_size)):
            if part is FORGET and epoch >= settings.msteps:
                parts.append([])
                continue
            order = torch.randperm(part.size, generator=shuffling).tolist()
            parts.append([(part.images[rows], part.labels[rows]) for rows in oracle.cut(order, size)])
        found.append(parts)
    return found


def run(model, settings=QUICK, forget=FORGET, retain=RETAIN, seed=3, **conditions):
    generator = tiny.generator(seed)
    given = {"settings": settings, "generator": generator, "conditions": Conditions(**conditions)}
    return method("scrub")(model, forget, retain, **given)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_epochs_are_those_of_the_oracle(epochs):
    settings = replace(QUICK, epochs=epochs, weight_decay=0.01)
    model = tiny.flat()
    module = tiny.plain_copy(model)
    teachers.scrub(module, settings, epochs_of(settings))
    torch.testing.assert_close(run(model, settings).vector, tiny.weights(module), rtol=0, atol=1e-12)


def test_the_students_weights_move_in_every_layer():
    """The released benchmark of another paper optimises the frozen teacher, and returns what it was given."""
    model = tiny.flat()
    moved = run(model).vector != model.vector
    assert all(piece.any() for piece in torch.split(moved, [p.numel() for p in model.parameters]))


def test_the_teacher_never_changes(monkeypatch):
    from fedunlearn.unlearning import scrub

    kept = []

    def frozen(model):
        kept.append(original(model))
        return kept[-1]

    original = scrub.frozen
    monkeypatch.setattr(scrub, "frozen", frozen)
    model = tiny.flat(norm=True)
    run(model, replace(QUICK, forget_batch_size=7, batch_size=5))
    teacher, *_ = kept
    assert torch.equal(teacher.vector, model.vector) and not teacher.module.training
    assert all(
        torch.equal(a, b) for a, b in zip(teacher.buffers().values(), model.buffers().values(), strict=True)
    )


def test_the_divergence_of_equal_logits_is_zero_and_of_others_is_not():
    logits = torch.randn(5, 4, generator=tiny.generator(), dtype=torch.float64)
    assert float(divergence(logits, logits, 4.0)) == 0
    assert float(divergence(logits, logits.flip(1), 4.0)) > 0
    assert float(divergence(logits + 1, logits, 4.0)) == pytest.approx(0, abs=1e-14)


def test_the_first_pass_over_f_alone_has_nothing_to_push_off_from():
    settings = replace(QUICK, epochs=1, weight_decay=0.0)
    with_ascent = run(tiny.flat(), settings, retain=RETAIN)
    model = tiny.flat()
    order = tiny.generator()
    torch.randperm(FORGET.size, generator=order)
    module = tiny.plain_copy(model)
    rows = torch.randperm(RETAIN.size, generator=order).tolist()
    batches = [(RETAIN.images[r], RETAIN.labels[r]) for r in oracle.cut(rows, 4)]
    teachers.scrub(module, replace(settings, msteps=0), [([], batches)])
    torch.testing.assert_close(with_ascent.vector, tiny.weights(module), rtol=0, atol=1e-12)


def test_the_ascent_drives_the_student_away_on_f():
    model = tiny.flat()
    settings = replace(QUICK, epochs=4, msteps=4)
    with_ascent, without = (run(model, replace(settings, msteps=m)) for m in (4, 0))
    logits = [m.module.eval()(FORGET.images) for m in (model, with_ascent, without)]
    assert divergence(logits[1], logits[0]) > divergence(logits[2], logits[0])


# -- rewinding ------------------------------------------------------------------------------------------------

LONG = replace(QUICK, epochs=6, rewind=True)


def test_rewinding_is_the_oracles():
    """Of the oracle's own checkpoints the one that errs on F as the last errs on held-out data of F's mix."""
    held_out = tiny.examples(40, 8)
    model = tiny.flat()
    module = tiny.plain_copy(model)
    checkpoints = teachers.scrub(module, LONG, epochs_of(LONG))

    def wrong(net, image, label):
        return int(net(image[None]).argmax()) != int(label)

    reference = 0.0
    for label in FORGET.labels.tolist():  # every forgotten example is worth the mean error of its class
        rows = [i for i in range(held_out.size) if held_out.labels[i] == label]
        errors = [wrong(checkpoints[-1], held_out.images[i], label) for i in rows]
        reference += sum(errors) / len(errors) / FORGET.size
    errors = [
        sum(wrong(net, *pair) for pair in zip(*FORGET, strict=True)) / FORGET.size for net in checkpoints
    ]
    gaps = [abs(error - reference) for error in errors]
    chosen = max(i for i, gap in enumerate(gaps) if gap == min(gaps))
    assert chosen < len(gaps) - 1  # or rewinding would not be seen
    unmatched = sum(wrong(checkpoints[-1], *pair) for pair in zip(*held_out, strict=True)) / held_out.size
    of_all = [abs(error - unmatched) for error in errors]
    assert min(of_all) < of_all[chosen]  # nor that labels are matched
    found = run(model, LONG, held_out=held_out)
    torch.testing.assert_close(found.vector, tiny.weights(checkpoints[chosen]), rtol=0, atol=1e-12)


def test_without_held_out_data_a_part_of_r_is_neither_trained_on_nor_lost():
    held_out, rest = split_held_out(RETAIN, 0.3, torch_generator(3, "held-out"), FORGET.labels)
    assert held_out.size == 3 and rest.size == 7
    both = torch.cat([held_out.images, rest.images]).flatten(1)
    assert sorted(both.tolist()) == sorted(RETAIN.images.flatten(1).tolist())
    settings = replace(LONG, held_out_share=0.3)
    given = run(tiny.flat(), settings, retain=rest, held_out=held_out)
    assert torch.equal(run(tiny.flat(), settings).vector, given.vector)


def test_one_held_out_example_is_of_a_forgotten_class_and_nothing_changes_where_one_was_drawn():
    labels = torch.arange(30) % 3
    labels[17] = 3
    retain = Examples(tiny.examples(30, 5).images, labels)
    drawn = 0
    for seed in range(40):
        draws = [torch.Generator().manual_seed(seed) for _ in range(3)]
        (alone, _), (of_all, _) = (
            split_held_out(retain, 0.2, draw, torch.tensor(classes))
            for draw, classes in zip(draws, ([3, 3], [0, 1, 2, 3]), strict=False)
        )
        assert 3 in alone.labels and alone.size == of_all.size == 6
        order = torch.randperm(30, generator=draws[2])[:6]
        assert torch.equal(of_all.labels, labels[order])
        drawn += 17 in order
        assert torch.equal(alone.labels[:5], of_all.labels[:5])
    assert 0 < drawn < 40


def test_without_rewinding_held_out_data_do_not_matter():
    a, b = run(tiny.flat()), run(tiny.flat(), held_out=tiny.examples(40, 5))
    assert torch.equal(a.vector, b.vector)


def test_rewinding_a_class_that_nothing_is_held_out_of_is_refused():
    forget = tiny.examples(6, 1, label=2)
    retain = RETAIN.select((RETAIN.labels != 2).nonzero().flatten())
    with pytest.raises(UserError, match="scrub: rewind = true needs held-out examples of F's classes"):
        run(tiny.flat(), LONG, forget, retain)
    assert run(tiny.flat(), LONG, forget, retain, held_out=tiny.examples(9, 4, label=2)) is not None


def test_errors_are_matched_to_the_label_mix():
    wrong, labels = torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.tensor([0, 0, 1, 3])
    assert matched_error(wrong, labels, torch.tensor([0, 0, 0, 1])) == pytest.approx(0.75 * 0.5 + 0.25)
    assert matched_error(wrong, labels, torch.tensor([0, 2])) == pytest.approx(0.5)  # none of class 2


def test_the_nearest_error_and_of_equal_ones_the_last():
    assert nearest([0.1, 0.4, 0.9], 0.5) == 1
    assert nearest([0.4, 0.6, 0.4, 0.9], 0.5) == 2


def test_mistakes_are_counted_in_evaluation_mode_and_batch_by_batch():
    model = tiny.flat(norm=True)
    model.module.train()
    one, other = (mistakes(model, FORGET, size) for size in (3, 100))
    assert torch.equal(one, other) and model.module.training
    right = model.copy().module.eval()(FORGET.images).argmax(1)
    assert mistakes(model, Examples(FORGET.images, right), 3).sum() == 0
