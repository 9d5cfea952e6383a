"""Earlier rounds that a live federation keeps for its method: where they lie, sealed, put away after a request."""

import pytest

from fedunlearn.certificates import certificate
from fedunlearn.certificates.issuer import Clerk
from fedunlearn.certificates.verification import verify
from fedunlearn.requests import LIVE_BRANCH
from fedunlearn.runs.history_files import HistoryFile
from tests.certificates.live_run import KEY, REMEMBERING
from tests.live.test_measures import Live


@pytest.mark.parametrize("direct", [True, False], ids=["trainer", "messages"])
def test_what_the_method_needs_of_earlier_rounds_lies_in_the_run_directory(tmp_path, direct):
    live = Live(tmp_path, REMEMBERING, direct=direct).ask(2).serve()
    kept = sorted(tmp_path.glob("history/federation/all-updates/round-*/*.safetensors"))
    assert [str(path.relative_to(kept[0].parents[1])) for path in kept] == [
        *(f"round-000001/client-{k}@000002.safetensors" for k in range(5)),
        *(f"round-000003/client-{k}@000003.safetensors" for k in (0, 1, 3, 4)),
    ], "round 2 forgets client 2, and notes that no update is any"
    assert live.ledger.requests(LIVE_BRANCH)[0].state == "forgotten"
    assert not list(tmp_path.rglob("*.tmp"))


def test_it_is_sealed_and_put_away_while_the_method_goes_on_with_the_rest(tmp_path):
    """Two requests, and the second one's step is with what the first one's retention has left."""
    live = Live(tmp_path, REMEMBERING, "train.rounds=6").ask(2)
    live.clerk = Clerk(tmp_path, live.ledger, LIVE_BRANCH, live.experiment, KEY)
    observe = live._observe

    def ask_again(report):
        observe(report)
        if report.round == 4:
            live.ledger.submit(LIVE_BRANCH, request_id="r2", clients=[4])

    live._observe = ask_again
    live.serve()
    assert {r.id: (r.state, r.unlearned_round) for r in live.ledger.requests(LIVE_BRANCH)} == {
        "r1": ("forgotten", 2),
        "r2": ("forgotten", 5),
    }
    kept = {
        (file.round, file.client, file.written) for file in map(HistoryFile.of, tmp_path.rglob("client-*"))
    }
    assert kept == {
        *((1, k, 5) for k in (0, 1, 3)),
        *((t, k, 5) for t in (3, 4) for k in (0, 1, 3)),
        *((6, k, 6) for k in (0, 1, 3)),
    }
    findings = verify(tmp_path, public_keys=[KEY.public])
    assert [finding.text for finding in findings if finding.holds is False] == []
    assert any(f.text == "earlier rounds of federation: 12 files, as they were sealed" for f in findings)
    removed = {r: certificate.read(p)["data"]["removed"] for r, p in certificate.issued(tmp_path).items()}
    assert "history/federation/all-updates/ (1 file)" in removed["r1"]
    assert "history/federation/all-updates/ (3 files)" in removed["r2"]
