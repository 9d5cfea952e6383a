"""Pages of requests: together what a plain listing says, whatever the page size, the states and the client."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.requests import STATES, Intake, Ledger, Move
from fedunlearn.requests.transitions import path
from tests.profiles import some

BRANCH = "federation"


@some
@given(
    made=st.lists(
        st.tuples(
            st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True),
            st.booleans(),
            st.sampled_from(STATES),
        ),
        max_size=14,
    ),
    limit=st.integers(1, 5),
    states=st.none() | st.lists(st.sampled_from(STATES), max_size=4),
    client=st.none() | st.integers(0, 2),
)
def test_pages_are_the_listing(made, limit, states, client) -> None:
    with Ledger(":memory:") as ledger, ledger.batch():
        intake = Intake(ledger, num_clients=3)
        for clients, of_part, state in made:
            record = intake.ask(clients, samples=0.5 if of_part else None, source="cli", actor="operator:ada")
            steps = path(intake.record(record.request_id).state, state) or ()
            ledger.transition_many(BRANCH, [Move(record.request_id, step, 1) for step in steps])
        expected = [
            record
            for record in ledger.requests(BRANCH)
            if (states is None or record.state in states) and (client is None or record.owners == (client,))
        ]
        found, after = [], 0
        for _ in itertools.count():
            page = ledger.page(BRANCH, states, client=client, after=after, limit=limit)
            found += page
            if len(page) < limit:
                break
            after = page[-1].arrival
        assert found == expected
        open_ = [record.arrived_at for record in ledger.requests(BRANCH) if not record.ended]
        assert ledger.oldest_open(BRANCH) == min(open_, default=None)


@pytest.mark.parametrize("number", [40_000])
def test_a_client_with_very_many_parts_has_a_list(number: int) -> None:
    """More of them than SQLite takes values in a statement."""
    with Ledger(":memory:") as ledger, ledger.batch():
        intake = Intake(ledger, num_clients=3)
        whole = intake.ask([1], source="cli", actor="operator:ada").request_id
        part = intake.ask([1], samples=[7], source="cli", actor="operator:ada").request_id
        ledger.store.rows(
            "WITH RECURSIVE n(v) AS (SELECT 4 UNION ALL SELECT v + 1 FROM n WHERE v < ?) "
            "INSERT INTO parts (branch, number, client, what) "
            "SELECT ?, v, 1, json_object('classes', NULL, 'samples', json_array(v)) FROM n",
            *(number, BRANCH),
        )
        assert [record.id for record in ledger.requests(BRANCH, client=1)] == [whole, part]
        assert [record.id for record in ledger.page(BRANCH, client=1, limit=9)] == [whole, part]
        assert len(ledger.parts(BRANCH)) == number - 2
