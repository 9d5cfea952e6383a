"""What a certificate says of a request for parts of clients' data."""

from dataclasses import replace

import pytest

from fedunlearn.certificates import certificate
from fedunlearn.certificates.words import NOTHING_TO_FORGET, ending, meaning
from fedunlearn.parts import Part
from fedunlearn.requests import Intake, Move
from fedunlearn.requests.transitions import ENDS, TRANSITIONS
from fedunlearn.wording import named
from tests.certificates.live_run import BRANCH, LiveRun
from tests.certificates.test_certificate import STORY

PARTS = (Part(6, 3, 0.5), Part(7, 1, None, (2,)), Part(8, 3, None, (2,)))


def story(state, came_from, **changes):
    unlearned = 6 if came_from == "recovering" else None
    return replace(
        STORY,
        clients=(6,),
        parts=PARTS[:1],
        state=state,
        came_from=came_from,
        unlearned_round=unlearned,
        **changes,
    )


def test_names():
    assert named((1, 2), PARTS) == "clients 1 and 2"
    assert named((6,), PARTS) == "50 % of the samples of client 3"
    assert named((7, 8), PARTS, start=True) == "Class 2 of clients 1 and 3"
    assert named((0, 6, 7), PARTS) == "client 0, 50 % of the samples of client 3 and class 2 of client 1"


@pytest.mark.parametrize("state", sorted(ENDS))
def test_every_end_is_told_of_the_part_and_not_of_its_client(state):
    """Whatever the way there: what stands of it names the part, and a client is never said to be left out."""
    for came_from in (before for before, after in TRANSITIONS.items() if state in after):
        for never in (False, True) if state == "excluded" else (False,):
            text = " ".join(meaning(story(state, came_from, never_took_part=never)))
            assert "50 % of the samples of client 3" in text
            assert "client 6" not in text and "no longer asked to train" not in text
            if came_from == "recovering":
                assert "client 3 goes on with the rest of its data" in text


def test_nothing_of_it_is_its_client_s_word():
    empty = story("excluded", "unlearning")
    assert ending(empty) is NOTHING_TO_FORGET and "is its statement" in meaning(empty)[0]
    assert ending(story("excluded", "waiting")).title == "Not forgotten: only excluded from training"


def ask(run, clients, **wanted):
    intake = Intake(run.ledger, BRANCH, num_clients=6)
    return intake.ask(clients, **wanted, source="cli", actor="operator:x").request_id


def certified(run, request):
    run.clerk().attend(run.round)
    path = run.folder / "certificates" / f"{request}.json"
    return certificate.read(path), path.with_suffix(".html").read_text()


def test_a_part_forgotten_with_its_client_was_not_forgotten_earlier(tmp_path):
    run = LiveRun(tmp_path / "run")
    run.train(range(6), 2)
    part, whole = ask(run, [3], samples=0.5), ask(run, [3])
    run.ledger.commit_plan(BRANCH, 3, {"round": 3, "train": [], "forget": [3], "requests": [part, whole]})
    for state in ("unlearning", "recovering"):
        run.ledger.transition_many(BRANCH, [Move(id_, state, 3) for id_ in (part, whole)])
    run.save()
    for id_ in (part, whole):
        run.end(id_, "forgotten")
    document, page = certified(run, part)
    assert (document["method"]["step"]["with_client"], document["method"]["step"]["already"]) == ([6], [])
    assert "Unlearned with all other data of their client: 50 % of the samples of client 3." in page
    assert "with_client" not in certified(run, whole)[0]["method"]["step"]


def test_a_duplicate_names_the_request_that_forgot_its_client(tmp_path):
    run = LiveRun(tmp_path / "run")
    run.train(range(6), 2)
    whole = ask(run, [3])
    run.unlearn(whole)
    run.end(whole, "forgotten")
    part = ask(run, [3], classes=[2])
    document, page = certified(run, part)
    assert document["outcome"]["state"] == "duplicate" and document["related"]["done_by"] == [whole]
    assert (
        f"was done by request {whole} and not repeated: class 2 of client 3 had already been unlearned"
        in page
    )


def test_training_that_left_the_part_out_is_not_its_own(tmp_path):
    run = LiveRun(tmp_path / "run")
    run.train(range(6), 2)
    part = ask(run, [3], samples=0.5)
    run.unlearn(part)
    for _ in range(2):
        plan = {"round": run.round + 1, "train": [2, 3], "forget": [], "requests": [], "without": {"3": [6]}}
        run.ledger.commit_plan(BRANCH, run.round + 1, plan)
        run.save()
    run.end(part, "forgotten")
    document, page = certified(run, part)
    assert document["participation"]["6"] == {
        "rounds": 2,
        "first": 1,
        "last": 2,
        "without_it_until": 5,
        "planned_after_end": 0,
    }
    assert "arrived, 50 % of the samples of client 3 had no part in it" in page
