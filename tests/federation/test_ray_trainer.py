"""What of a round travels to Ray workers, and who is tried again when workers die."""

from dataclasses import replace
from types import MappingProxyType, SimpleNamespace

import pytest

from fedunlearn.federation.ray_engine import trainer as module
from fedunlearn.federation.ray_engine.dispatcher import Lost
from fedunlearn.federation.ray_engine.shared_buffers import unpack
from fedunlearn.federation.ray_engine.trainer import RayTrainer
from tests.federation.ray_routines import round_of


class Pool:
    """Says of every job that its workers died of it."""

    def __init__(self):
        self.runs = []

    def run(self, jobs, submit, name):
        self.runs.append([unit.clients for unit in jobs])
        yield from [(unit, Lost(3, "killed")) for unit in jobs]


@pytest.fixture
def sent(monkeypatch):
    found = []
    monkeypatch.setattr(module, "ray", SimpleNamespace(put=found.append))
    return found


def test_the_settings_travel_whatever_mapping_they_are_and_the_clients_stay(sent):
    work = round_of(range(3), individually=True)
    RayTrainer(Pool(), workers=1).train_round(replace(work, config=MappingProxyType(work.config)))
    (parcel,) = sent
    told = unpack(parcel)
    assert told.config == work.config and told.train == told.forget == ()
    assert type(told.config) is dict, "workers need not have the class that it was"


def test_who_died_alone_is_not_tried_again_and_who_died_in_company_is_alone(sent):
    pool = Pool()
    answers = RayTrainer(pool, workers=1).train_round(round_of(range(3), forget=(7,)))
    assert pool.runs == [[(0, 1, 2), (7,)], [(0,), (1,), (2,)]]
    assert {client: why.partition(",")[0] for client, why in answers.failed.items()} == dict.fromkeys(
        (0, 1, 2, 7), "3 Ray workers died"
    )
