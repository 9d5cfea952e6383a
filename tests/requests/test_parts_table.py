"""Parts of clients' data in the ledger: numbered once, covered by the trail."""

import json

import pytest

from fedunlearn.errors import UserError
from fedunlearn.parts import Part
from fedunlearn.requests import (
    Intake,
    InvalidRequestError,
    Ledger,
    Move,
    NotAllowedError,
    RequestConflictError,
)
from fedunlearn.requests.forget_target import samples_in

B = "federation"
ANNA = "operator:anna"


@pytest.fixture
def ledger():
    with Ledger(":memory:") as ledger:
        yield ledger


@pytest.fixture
def intake(ledger):
    return Intake(ledger, num_clients=5)


def ask(intake, clients, actor=ANNA, **wanted):
    return intake.ask(clients, **wanted, source="cli", actor=actor)


def record(ledger, receipt):
    return ledger.request(B, receipt.request_id)


def unlearn(ledger, receipt, round=4):
    for state in ("scheduled", "unlearning", "recovering"):
        ledger.transition_many(B, [Move(receipt.request_id, state, round)])


def test_a_description_has_one_number_for_good(tmp_path):
    place = tmp_path / "requests.sqlite"
    asked = [
        ([1], {"samples": 0.5}),
        ([1], {"samples": [4, 2]}),
        (None, {"classes": [2]}),
        ([1], {"samples": 0.5}),
        ([1], {"samples": {1: [2, 4]}}),
        ([3, 1], {"classes": [2, 2]}),
        ([1], {"samples": 0.5, "classes": [2]}),
    ]
    numbers = []
    for clients, wanted in asked:
        with Ledger(place) as ledger:  # each time opened anew
            receipt = ask(Intake(ledger, num_clients=5), clients, **wanted)
            numbers.append(record(ledger, receipt).clients)
            assert receipt.clients == (tuple(range(5)) if clients is None else tuple(sorted(clients)))
    assert numbers == [(5,), (6,), (7, 8, 9, 10, 11), (5,), (6,), (8, 10), (12,)]
    with Ledger(place) as ledger:
        assert ledger.parts(B)[6] == Part(6, 1, (2, 4)) and ledger.parts(B)[8] == Part(8, 1, None, (2,))
        assert ledger.check_trail(B) == []


@pytest.mark.parametrize(
    "edit",
    [
        """UPDATE parts SET what = '{"classes":null,"samples":0.1}' WHERE number = 5""",
        "UPDATE parts SET client = 2 WHERE number = 5",
        "DELETE FROM parts WHERE number = 5",
        "UPDATE parts SET number = 9 WHERE number = 5",
        "UPDATE audit SET asked = NULL WHERE entry = 1",
        "UPDATE audit SET asked = (SELECT asked FROM audit WHERE entry = 2) WHERE entry = 1",
        "UPDATE requests SET clients = '[6]' WHERE arrival = 1",
    ],
)
def test_what_a_part_is_cannot_be_edited_unseen(ledger, intake, edit):
    ask(intake, [1], samples=0.5)
    ask(intake, [1], samples=[0])
    assert ledger.check_trail(B) == []
    ledger.store.rows(edit)
    assert ledger.check_trail(B) != []


def test_an_export_brings_the_parts_along(ledger, intake):
    ask(intake, [1], samples=0.5)
    ask(intake, None, classes=[2])
    exported = json.loads(json.dumps(ledger.export(B)))
    ledger.load("copy", exported)
    assert ledger.parts("copy") == ledger.parts(B) and ledger.export("copy") == exported
    assert ledger.check_trail("copy") == []
    assert [r.parts for r in ledger.requests("copy")] == [r.parts for r in ledger.requests(B)]
    exported["parts"][0]["client"] = 3
    with pytest.raises(Exception, match="damaged"):
        ledger.load("copy", exported)


def test_asked_again_it_is_the_same(ledger, intake):
    first = ask(intake, [1], samples=0.5)
    assert ask(intake, [1], samples=0.5).same_as == first.request_id
    assert ask(intake, [1], samples=0.25).same_as is None
    assert ask(intake, [1]).same_as is None, "it is more"
    unlearn(ledger, first)
    assert ask(intake, [1], samples=0.5).state == "duplicate"
    assert ask(intake, [1], samples=0.25).state == "received"


def test_a_part_of_a_client_that_is_forgotten_or_asked_to_be_is_covered(ledger, intake):
    whole = ask(intake, [1, 2])
    assert ask(intake, [1], classes=[3]).same_as == whole.request_id
    assert ask(intake, [1, 3], classes=[3]).same_as is None
    unlearn(ledger, whole)
    assert ask(intake, [2], samples=[0]).state == "duplicate"
    assert ask(intake, [2, 3], classes=[0]).state == "received", "of client 3 there is something to forget"


def test_a_key_is_good_for_one_description(intake):
    def keyed(**wanted):
        return intake.ask([1], **wanted, source="http", actor=ANNA, idempotency_key="k")

    first = keyed(samples=0.5)
    assert keyed(samples=0.5).request_id == first.request_id
    with pytest.raises(
        RequestConflictError, match=r"used for 50 % of the samples of client 1; a request for 25 %"
    ):
        keyed(samples=0.25)
    with pytest.raises(RequestConflictError, match="a request for client 1 needs"):
        keyed()
    assert len(intake.ledger.parts(B)) == 1, "what was refused has left nothing"


def test_a_client_asks_only_about_its_own_data(ledger, intake):
    made = ask(intake, [1], actor="client:1", classes=[2])
    for clients in (None, [2], [1, 2]):
        with pytest.raises(NotAllowedError, match="client:1 may ask only for itself"):
            ask(intake, clients, actor="client:1", classes=[2])
    everyone = ask(intake, None, classes=[2])
    with pytest.raises(NotAllowedError):
        intake.withdraw(everyone.request_id, actor="client:1")
    assert {r.id for r in ledger.requests(B, client=1)} == {made.request_id, everyone.request_id}
    assert {r.id for r in ledger.requests(B, client=2)} == {everyone.request_id}
    assert intake.withdraw(made.request_id, actor="client:1").state == "withdrawn"


@pytest.mark.parametrize(
    ("clients", "wanted", "says"),
    [
        (None, {}, "clients: is missing; name clients, or classes to forget every client's samples of them"),
        (None, {"samples": 0.5}, "clients: is missing"),
        ([9], {"classes": [1]}, "clients: 9 is not a client"),
        ([1], {"samples": 0}, "samples: 0 is not a share"),
        ([1], {"samples": 1.5}, "samples: 1.5 is not a share"),
        ([1], {"samples": float("nan")}, "samples: nan is not a share"),
        ([1], {"samples": True}, "samples: True is not a share"),
        ([1], {"samples": 1.0}, "samples: 1 means all of them"),
        ([1], {"samples": []}, "samples: is empty"),
        ([1], {"samples": [1, 1]}, "samples: names a row twice"),
        ([1], {"samples": [-1]}, "samples: -1 is not a row"),
        ([1, 2], {"samples": [0]}, "samples: single rows belong to one client"),
        ([1, 2], {"samples": {1: [0]}}, "samples: must have the rows of each named client"),
        ([1], {"classes": []}, "classes: is empty"),
        ([1], {"classes": [-1]}, "classes: -1 is not a class"),
    ],
)
def test_what_can_mean_nothing_is_refused_and_leaves_nothing(ledger, intake, clients, wanted, says):
    with pytest.raises(InvalidRequestError) as error:
        ask(intake, clients, **wanted)
    assert says in str(error.value) and "\n" not in str(error.value)
    assert ledger.requests(B) == [] and len(ledger.parts(B)) == 0


def test_masks_have_no_classes_to_forget(ledger):
    with pytest.raises(InvalidRequestError, match="meaningless for masks"):
        ask(Intake(ledger, num_clients=5, task="segmentation"), [1], classes=[0])


def test_a_class_that_the_data_do_not_have_is_refused_where_their_number_is_known(ledger):
    intake = Intake(ledger, num_clients=5, num_classes=lambda: 10)
    for clients in (None, [1]):
        with pytest.raises(InvalidRequestError) as error:
            ask(intake, clients, classes=[3, 13])
        assert str(error.value) == "classes: 13 is not a class of this federation's data; must be from 0 to 9"
    assert ledger.requests(B) == []
    assert ask(intake, [1], classes=[9]).state == "received"
    assert ask(Intake(ledger, num_clients=5), [1], classes=[13]).state == "received", "not known: any may be"


def test_samples_on_a_command_line(tmp_path):
    rows = tmp_path / "rows.json"
    rows.write_text('{"3": [4, 1], "5": [0]}')
    assert samples_in(None, None) is None
    assert samples_in("0.5", [1]) == samples_in(".5", [1]) == 0.5
    assert samples_in("4,17,33", [1]) == [4, 17, 33] and samples_in("7,", [1]) == [7]
    assert samples_in(str(rows), [5, 3]) == {3: (4, 1), 5: (0,)}
    for text, says in (
        ("7", "between 0 and 1, such as 0.5; write a single row with a comma: 7,$"),
        ("0", "between 0 and 1, such as 0.5; write a single row with a comma: 0,$"),
        (str(rows), "whose rows"),
    ):
        with pytest.raises(UserError, match=says):
            samples_in(text, None)
    with pytest.raises(UserError, match="cannot be read"):
        samples_in("nowhere.json", [1])
    for text in ("abc", "3,3,x", "-1,", "", ",", "3, 17", "1," * 3000 + "x"):
        with pytest.raises(UserError) as error:
            samples_in(text, [1])
        assert str(error.value) == (
            f"--samples {text}: must be a share such as 0.5, rows such as 3,17,42 (a single one: 3,), or a JSON file "
            "of rows"
        )
