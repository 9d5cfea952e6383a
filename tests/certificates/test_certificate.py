"""A certificate says what is true, in words, and a page shows all of it."""

import html
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.certificates import certificate
from fedunlearn.certificates.facts import instant
from fedunlearn.certificates.page import page
from fedunlearn.certificates.words import ENDINGS, Story, ending, meaning, named
from fedunlearn.deployment.supervise import MEMORY
from fedunlearn.requests.records import NEVER_TOOK_PART
from fedunlearn.requests.transitions import ENDS
from tests.certificates.live_run import BRANCH, LiveRun, ended_run

STORY = Story(
    clients=(3,),
    state="forgotten",
    came_from="recovering",
    unlearned_round=6,
    ended_round=8,
    until="reference-accuracy",
    epsilon=1.0,
    max_rounds=15,
    quality="accuracy on the server's validation data",
    method="PUF",
)


def text_of(story: Story) -> str:
    return " ".join(meaning(story))


def certified(run: LiveRun, request: str) -> dict[str, Any]:
    run.clerk().attend(run.round)
    return certificate.read(run.folder / "certificates" / f"{request}.json")


def shown(document: dict[str, Any]) -> str:
    """The page's text, as a reader sees it."""
    body = page(document).partition("<body>")[2]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path, value


# -- words ------------------------------------------------------------------------------------------------------


def test_there_are_words_for_every_end_and_only_unlearned_ones_are_called_forgotten() -> None:
    assert set(ENDINGS) == ENDS
    for state, end in ENDINGS.items():
        assert end.unlearned == (state in ("forgotten", "forgotten-unrecovered", "superseded"))
        assert end.title.startswith("Forgotten") == end.unlearned
        assert (end.tone == "good") == (state == "forgotten")


def test_the_page_of_documentation_calls_them_the_same() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "certificates.md").read_text()
    rows = dict(re.findall(r"^\| `([\w-]+)` \| ([^|]+?) \|", text, re.MULTILINE))
    assert rows == {state: ending.title for state, ending in ENDINGS.items()}


@pytest.mark.parametrize("state", sorted(ENDS))
@pytest.mark.parametrize("clients", [(3,), (3, 7), (1, 3, 7)])
@pytest.mark.parametrize("came_from", ["received", "waiting", "scheduled", "unlearning", "recovering"])
@pytest.mark.parametrize("rounds", [(6, 8), (6, 6), (None, None)])
def test_the_sentences_are_sentences(
    state: str, clients: tuple[int, ...], came_from: str, rounds: tuple[int | None, int | None]
) -> None:
    story = replace(
        STORY,
        state=state,
        clients=clients,
        came_from=came_from,
        unlearned_round=rounds[0],
        ended_round=rounds[1],
    )
    for paragraph in meaning(story):
        assert (
            paragraph[0].isupper()
            and paragraph.endswith(".")
            and "  " not in paragraph
            and " ." not in paragraph
        )
    assert named(clients) in text_of(story).lower()
    if state in ("excluded", "refused", "failed"):
        assert "NOT been forgotten" in text_of(story)
    else:
        assert "NOT" not in text_of(story)


def test_recovery_is_told_as_the_rule_had_it() -> None:
    assert "within 1 point of what it had been before: recovered" in text_of(STORY)
    assert "no lower than it had been before" in text_of(replace(STORY, epsilon=0.0))
    fixed = text_of(replace(STORY, until="max-rounds"))
    assert "fixed number of rounds" in fixed and "recovered" not in fixed
    capped = text_of(replace(STORY, state="forgotten-unrecovered", ended_round=20))
    assert "cap of 15 rounds (rounds 6 to 20)" in capped and "recovered." not in capped
    taken_over = text_of(replace(STORY, state="superseded", others=("rab", "rcd")))
    assert "(rab, rcd)" in taken_over


def test_refusals_are_told_apart() -> None:
    rolled_back = text_of(replace(STORY, state="refused", came_from="unlearning"))
    assert "rolled back" in rolled_back and "no longer asked to train" in rolled_back
    never_tried = text_of(replace(STORY, state="refused", came_from="received"))
    assert "No step was taken" in never_tried and "no longer asked to train" not in never_tried


@given(st.lists(st.integers(0, 99), min_size=1, max_size=5))
def test_clients_are_listed_as_in_speech(clients: list[int]) -> None:
    text = named(clients)
    assert re.findall(r"\d+", text) == [str(client) for client in clients]
    assert text.startswith("clients " if len(clients) > 1 else "client ")
    assert text.count(" and ") == (len(clients) > 1)


@pytest.mark.parametrize("state", ["excluded", "refused", "failed", "withdrawn"])
def test_whom_other_requests_forgot_is_not_called_unforgotten(state: str) -> None:
    story = replace(STORY, state=state, clients=(1, 2, 3), forgotten={1: ("ra",), 2: ("ra", "rb")})
    told = text_of(story)
    assert "Client 1 has been forgotten, not because of this request but by request ra." in told
    assert "Client 2 has been forgotten, not because of this request but by requests ra and rb." in told
    if state != "withdrawn":
        assert "Client 3 has NOT been forgotten" in told
    assert not re.search(r"[Cc]lients[^.]* NOT", told)
    assert "clients 1 and 2 were forgotten by other requests" in ending(story).title
    everyone = replace(story, clients=(1, 2))
    assert "NOT" not in text_of(everyone) and "not" not in ending(everyone).title


# -- the document -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(ENDS))
def test_what_is_not_known_is_null_with_a_reason(tmp_path: Path, state: str) -> None:
    run, request = ended_run(tmp_path / "run", state)
    document = certified(run, request)

    def check(value: Any) -> None:
        if isinstance(value, list):
            for item in value:
                check(item)
        if isinstance(value, dict):
            missing = [name for name, item in value.items() if item is None and name != "reason"]
            if "reason" in value:
                assert bool(missing) == bool(value["reason"]), value
            for item in value.values():
                check(item)

    for part in ("times", "weights", "signature"):
        check(document[part])
    assert all(stage.get("reason") for stage in document["measures"].values())
    unlearned = ENDINGS[state].unlearned
    assert (document["times"]["applied"]["at"] is not None) == unlearned
    assert (document["weights"]["before"]["sha256"] is not None) == (unlearned or state == "refused")
    assert any("approximate unlearning" in limit for limit in document["outcome"]["limits"]) == unlearned


def test_times_and_rounds_are_those_of_the_trail(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten")
    document = certified(run, request)
    entries = [entry for entry in run.ledger.audit(BRANCH) if entry.request_id == request]
    by_state = {entry.to_state: instant(entry.at) for entry in entries}
    expected = {
        "asked": (by_state["received"], None),
        "planned": (by_state["scheduled"], 4),
        "applied": (by_state["recovering"], 4),
        "ended": (by_state["forgotten"], 6),
    }
    assert {name: (time["at"], time["round"]) for name, time in document["times"].items()} == expected
    assert [step["to"] for step in document["history"]] == list(by_state)


def test_part_in_training_is_counted_without_failed_rounds_and_plans_to_come(tmp_path: Path) -> None:
    run = LiveRun(tmp_path / "run")
    run.train(range(6), 2)
    run.train(range(6), 1, failed=[3])
    run.train([0, 1])
    request = run.ask(3, 5)
    run.unlearn(request)
    run.end(request, "forgotten")
    # Committed before a crash, not executed yet; and never with these clients.
    run.ledger.commit_plan(
        BRANCH, run.round + 1, {"round": run.round + 1, "train": [3], "forget": [], "requests": []}
    )
    document = certified(run, request)
    assert document["participation"] == {
        "3": {"rounds": 2, "first": 1, "last": 2, "without_it_until": None, "planned_after_end": 0},
        "5": {"rounds": 3, "first": 1, "last": 3, "without_it_until": 4, "planned_after_end": 0},
    }
    text = shown(document)
    assert (
        "3, the first 1, the last 3; training continued to round 4; from the first round planned after the request "
        "arrived, client 5 had no part in it" in text
    )
    assert "client 3 had no part" not in text  # it was planned in round 3, and failed


def test_a_stored_update_is_told_apart_from_the_clients_own(tmp_path: Path) -> None:
    run = LiveRun(tmp_path / "run")
    run.train(range(6), 2)
    request = run.ask(3, 4)
    run.unlearn(request, stored={4: 2})
    run.end(request, "forgotten")
    document = certified(run, request)
    step = document["method"]["step"]
    assert (step["own_update"], step["stored_update"]) == ([3], {"4": 2})
    assert "Client 4 could not be reached; its stored update of round 2 was used instead" in shown(document)


def partly_forgotten(run: LiveRun, *clients: int) -> str:
    """A request forgets some clients; return its id."""
    request = run.ask(*clients)
    run.unlearn(request)
    run.end(request, "forgotten")
    return request


def test_a_refused_request_for_everyone_leaves_every_forgetting_as_it_is(tmp_path: Path) -> None:
    run = LiveRun(tmp_path / "run")
    run.train(range(5), 2)
    first, second = partly_forgotten(run, 1, 2), partly_forgotten(run, 1, 3)
    refused = run.ask(0, 1, 2, 3, 4)
    run.end(refused, "refused", detail="nobody would be left to learn from")
    document = certified(run, refused)
    outcome, text = document["outcome"], shown(document)
    assert (
        outcome["title"]
        == "Refused; clients 1, 2 and 3 were forgotten by other requests, clients 0 and 4 not"
    )
    assert outcome["unlearned"] is False
    assert "Clients 0 and 4 have NOT been forgotten." in text
    assert document["related"]["forgotten_by"] == {
        "1": sorted([first, second]),
        "2": [first],
        "3": [second],
    }
    for id_ in (first, second):
        assert f"{id_}, ended as “Forgotten”. That stands." in text
    assert "later certificate counts" not in text


def test_only_the_certificate_of_an_unlearned_request_is_the_later_word(tmp_path: Path) -> None:
    run, excluded = ended_run(tmp_path / "run", "excluded")
    withdrawn = run.ask(3)
    run.end(withdrawn, "withdrawn")
    assert "later certificate counts" not in shown(certified(run, withdrawn))
    forgotten = partly_forgotten(run, 3)
    text = shown(certified(run, forgotten))
    assert (
        f"{excluded}, ended as “Not forgotten: only excluded from training”. Where the two differ, this"
        in text
    )


def test_of_a_client_that_never_trained_there_was_nothing_to_forget(tmp_path: Path) -> None:
    run = LiveRun(tmp_path / "run")
    run.train([0, 1, 2, 3, 5], 2, failed=[5])
    told: dict[tuple[int, ...], dict[str, Any]] = {}
    for clients in ((4,), (4, 5), (3, 4)):
        request = run.ask(*clients)
        run.end(request, "excluded", detail=NEVER_TOOK_PART)
        told[clients] = certified(run, request)
    for clients in ((4,), (4, 5)):
        outcome, text = told[clients]["outcome"], shown(told[clients])
        assert (outcome["title"], outcome["tone"], outcome["unlearned"]) == (
            "Nothing to forget",
            "unknown",
            False,
        )
        assert f"{named(clients, start=True)} never took part in training" in text
        assert "nothing had been learned from" in text and "excluded from training from round 2 on" in text
        assert "NOT been forgotten" not in text and "still contains" not in text
    assert 'class="unknown"' in page(told[4,])
    # The remark is outside the chain: where plans say otherwise, it does not count.
    assert told[3, 4]["outcome"]["title"] == "Not forgotten: only excluded from training"
    assert "“Nothing to forget”" in shown(told[3, 4])


def test_measures_are_passed_on_and_shown_with_their_reasons(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten")
    told = {
        "round": 4,
        "validation": {"accuracy": 41.5},
        "clients": {
            "3": {"values": {"forget_accuracy": None}, "reasons": {"forget_accuracy": "its node is gone"}}
        },
        "told": [],
    }
    run.ledger.note_measures(BRANCH, request, "unlearned", told)
    document = certified(run, request)
    assert document["measures"]["unlearned"] == told
    assert document["measures"]["before"]["reason"]
    text = shown(document)
    assert "41.50" in text and "– (its node is gone)" in text
    assert "not known to have been notified" in text


def test_no_operators_name_stands_in_a_certificate(tmp_path: Path) -> None:
    run = LiveRun(tmp_path / "run")
    request = run.ask(3, actor="operator:anna")
    run.end(request, "withdrawn", detail="by operator:anna")
    document = certified(run, request)
    assert document["request"]["asked_by"] == "an operator"
    assert document["outcome"]["remark"] == "by an operator"
    assert "anna" not in str(document) + page(document)
    assert "an operator, named in the ledger (via http)" in shown(document)


def test_of_a_client_that_goes_on_training_nobody_says_that_it_does_not(tmp_path: Path) -> None:
    run = LiveRun(tmp_path / "run")
    run.train(range(6), 2)
    request = run.ask(3)
    run.end(request, "withdrawn")
    run.train([0, 1])
    document = certified(run, request)
    assert document["participation"]["3"]["without_it_until"] == 3
    assert "had no part in it" not in shown(document)


def above(text: str, *words: str) -> bool:
    """Whether these stand on a page in this order."""
    places = [text.index(word) for word in words]
    return places == sorted(places)


@pytest.mark.parametrize("state", sorted(ENDS))
def test_the_limits_stand_right_under_the_headline(tmp_path: Path, state: str) -> None:
    run, request = ended_run(tmp_path / "run", state)
    document = certified(run, request)
    text, outcome = shown(document), document["outcome"]
    header = re.findall(r"<header>.*</header>", page(document), re.DOTALL)[0]
    limit = "this does not certify that nothing is left"
    assert (limit in header) == outcome["unlearned"]
    assert above(
        text, outcome["title"], outcome["meaning"][0], "What this certificate does not say", "Asks to forget"
    )


@pytest.mark.parametrize(
    ("state", "earlier", "said"),
    [
        (
            "forgotten",
            "quarantine",
            "weights from before the step and stored updates of the clients are still in quarantine",
        ),
        (
            "forgotten",
            "keep",
            "weights from before the step and stored updates of the clients are still in the run directory",
        ),
        ("excluded", "quarantine", "removed: stored updates of the clients are still in quarantine (1 file,"),
        ("forgotten", "purge", None),
        ("withdrawn", "quarantine", None),
    ],
)
def test_the_headline_says_what_still_lies_there(
    tmp_path: Path, state: str, earlier: str, said: str | None
) -> None:
    run, request = ended_run(tmp_path / "run", state, f'retention.earlier="{earlier}"')
    document = certified(run, request)
    header = re.findall(r"<header>.*</header>", page(document), re.DOTALL)[0]
    if said is None:
        assert "are still" not in header
    else:
        assert said in header
    if said is not None and state == "forgotten":
        files = sum(
            k["files"] for k in document["data"]["remaining"] if k["holds"] in ("update", "earlier-weights")
        )
        assert f"({files} files, listed below)" in header and files > 1


@pytest.mark.parametrize(("before", "blunt"), [(51.3, True), (45.0, True), (44.9, False), (71.0, False)])
def test_an_attack_that_could_never_tell_proves_nothing(tmp_path: Path, before: float, blunt: bool) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten")

    def measured(auc: float | None, reason: str = "") -> dict[str, Any]:
        name = "mia_auc_binned"
        reasons = {name: reason} if reason else {}
        clients = {"3": {"values": {name: auc}, "reasons": reasons}}
        return {"round": 4, "validation": {}, "clients": clients, "told": []}

    run.ledger.note_measures(BRANCH, request, "before", measured(before))
    run.ledger.note_measures(BRANCH, request, "unlearned", measured(50.2))
    run.ledger.note_measures(
        BRANCH, request, "ended", measured(None, "a node is asked about forgotten data only once")
    )
    text = shown(certified(run, request))
    assert ("proves nothing" in text) == blunt
    assert (f"even before the step (AUC {before:.2f} %" in text) == blunt
    assert "their nodes were not asked again: a node is asked about forgotten data only once." in text


def test_without_an_attack_before_the_step_nothing_is_said_of_it(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten")
    nothing = {"values": {"mia_auc_binned": None}, "reasons": {"mia_auc_binned": "too few examples"}}
    document = {"round": 4, "validation": {}, "clients": {"3": nothing}, "told": []}
    run.ledger.note_measures(BRANCH, request, "before", document)
    text = shown(certified(run, request))
    assert "proves nothing" not in text and "not asked again" not in text


def test_the_words_of_the_trade_are_explained(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "superseded")
    text = shown(certified(run, request))
    for word in ("trail", "head", "superseded", "nats"):
        assert len(re.findall(rf"\b{word} : ", text)) == 1


def test_what_the_supervisor_left_is_of_a_known_kind(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten")
    (run.folder / MEMORY).write_text("{}")
    remaining = {kept["place"]: kept for kept in certified(run, request)["data"]["remaining"]}
    assert remaining[MEMORY]["holds"] == "record" and "unknown kind" not in remaining[MEMORY]["about"]


@pytest.mark.parametrize("earlier", ["purge", "quarantine", "keep"])
def test_what_was_put_away_is_listed_file_by_file(tmp_path: Path, earlier: str) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten", f'retention.earlier="{earlier}"')
    before = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}
    data = certified(run, request)["data"]
    gone = sorted(name for name in before if not (run.folder / name).exists())
    assert {"purge": data["removed"], "quarantine": data["moved"], "keep": []}[earlier] == gone
    assert bool(data["removed"]) == (earlier == "purge") and bool(data["moved"]) == (earlier == "quarantine")
    assert ("update" in {kept["holds"] for kept in data["remaining"]}) == (earlier != "purge")


# -- the page ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(ENDS))
def test_the_page_shows_what_the_certificate_says(tmp_path: Path, state: str) -> None:
    run, request = ended_run(tmp_path / "run", state)
    document = certified(run, request)
    text = shown(document)
    said = [document["outcome"]["title"], *document["outcome"]["meaning"], *document["outcome"]["limits"]]
    said += [kept["place"] for kept in document["data"]["remaining"]]
    said += [stated["sha256"] or stated["reason"] for stated in document["weights"].values()]
    said += [step["hash"] for step in document["history"]]
    said += [document["data"]["superlink"]["in_words"], document["data"]["policy_in_words"]]
    said += [document["signature"]["value"], document["issuer"]["key_id"], request]
    for words in said:
        assert re.sub(r"\s+", " ", words) in text


def test_the_page_is_one_file_and_escapes_what_it_is_told(tmp_path: Path) -> None:
    run = LiveRun(tmp_path / "run")
    request = run.ask(3)
    run.end(request, "refused", detail="<script>alert('x')</script>")
    document = certified(run, request)
    written = (run.folder / "certificates" / f"{request}.html").read_text()
    assert written == page(document)
    assert "<script" not in written and "&lt;script&gt;" in written
    assert not re.search(r"\b(src|href|url\()", written)


def test_every_value_of_the_history_and_data_changes_the_page(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten")
    document = certified(run, request)
    whole = page(document)
    for path, value in leaves(document):
        changed = _with(document, path, "other" if isinstance(value, str) or value is None else value + 1)
        try:
            assert page(changed) != whole, path
        except (KeyError, ValueError, TypeError, AttributeError):
            continue  # what is no certificate any more has no page either


def _with(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    if not path:
        return value
    twin = dict(document) if isinstance(document, dict) else list(document)
    twin[path[0]] = _with(document[path[0]], path[1:], value)
    return twin
