"""What the end of a forget request means, in words for a data-protection officer: what is true, and nothing more.

Three things are kept apart. *Unlearned*: a step that removes an estimate of the clients' influence was applied to the
shared model. *Excluded*: the clients are no longer asked to train. *Removed*: files that hold something of them
were removed. Only the first is called forgetting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from fedunlearn.parts import Part
from fedunlearn.plurals import joined
from fedunlearn.requests.standing import Standing
from fedunlearn.wording import named as named

Tone = Literal["good", "fair", "poor", "unknown"]


@dataclass(frozen=True)
class Ending:
    """How one end state is called.

    Attributes
    ----------
    title : str
        The certificate's headline.
    tone : str
        ``good``: unlearned and recovered; ``fair``: unlearned, with something to add; ``poor``: the request was
        not fulfilled; ``unknown``: there was nothing to fulfil.
    unlearned : bool
        Whether a step was applied to the weights for this very request.
    short : str
        The headline's beginning where other requests have forgotten some of the clients; "" where it stays.
    """

    title: str
    tone: Tone
    unlearned: bool
    short: str = ""


ENDINGS: dict[str, Ending] = {
    "forgotten": Ending("Forgotten", "good", True),
    "forgotten-unrecovered": Ending("Forgotten; the model has not recovered", "fair", True),
    "superseded": Ending("Forgotten; recovery went on under a later request", "fair", True),
    "excluded": Ending(
        "Not forgotten: only excluded from training", "poor", False, "Only excluded from training"
    ),
    "refused": Ending("Not forgotten: refused", "poor", False, "Refused"),
    "failed": Ending("Not forgotten: given up", "poor", False, "Given up"),
    "withdrawn": Ending("Withdrawn", "unknown", False, "Withdrawn"),
    "duplicate": Ending("Covered by another request", "unknown", False),
}

NOTHING_TO_FORGET = Ending("Nothing to forget", "unknown", False)
"""How ``excluded`` is called where the clients never took part in training."""

APPROXIMATE = "Approximate unlearning: this does not certify that nothing is left."
"""What stands right under the headline of every unlearned request."""

LIMITS = (
    "This is approximate unlearning. The step removes an estimate of what the model learned from the data concerned. "
    "It does not produce the model that training without these data would have given, and this certificate does not "
    "prove that nothing is left.",
    "Beyond this server's reach, and not covered here: the data at the client itself; copies of earlier models that "
    "participants received during training; backups, snapshots, exports and predictions of the model.",
)
"""What every certificate of an unlearned request says besides."""

LEGAL = (
    "This certificate states technical facts as the server recorded them. Whether they meet a legal duty, such as "
    "Article 17 GDPR, is for the controller to judge."
)

PURGED = (
    "Removed files were unlinked: their names are gone and their space was freed. This does not guarantee that the "
    "disk blocks were overwritten, and it does not affect backups or snapshots."
)


WORDS = {
    "trail": "a chain of every step of every request; no entry can be changed without changing all later hashes.",
    "head": "number and hash of the trail's last entry at some time; it covers all entries up to it.",
    "superseded": "the step was applied, and a later request took over before the model had recovered.",
    "nats": "the unit of a loss computed with the natural logarithm; the lower, the better the model fits.",
}
"""What a reader of the page may not know."""


@dataclass(frozen=True)
class Story:
    """What the sentences about a request need to know.

    Attributes
    ----------
    clients : tuple[int, ...]
    state : str
        Its end.
    came_from : str or None
        The state before its end.
    unlearned_round, ended_round : int or None
    until, epsilon, max_rounds
        The recovery rule (``[recover]``).
    quality : str
        What recovery is judged by, such as "accuracy on the server's validation data".
    method : str
        In words.
    same_as : str or None
        The request that this one repeats.
    others : tuple[str, ...]
        Requests that forgot the clients (of a duplicate), or that took over recovery (of a superseded one).
    forgotten : Mapping[int, tuple[str, ...]]
        Of a request for which nothing was unlearned: those of its clients that other requests forgot → which.
    never_took_part : bool
        Whether it ended as ``excluded`` because no round ever had training of its clients.
    parts : tuple of Part
        What numbers among the clients stand for that are parts of clients' data.
    standing : Standing
        What the step did to each of the clients, and which of those named in part go on.
    first_round : int or None
        The first round of the unlearning that was applied, or taken back; None: there was none.
    steps : int
        How many of its rounds came before the last, less those that were in vain.
    """

    clients: tuple[int, ...]
    state: str
    came_from: str | None
    unlearned_round: int | None
    ended_round: int | None
    until: str
    epsilon: float
    max_rounds: int
    quality: str
    method: str
    same_as: str | None = None
    others: tuple[str, ...] = ()
    forgotten: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    never_took_part: bool = False
    parts: tuple[Part, ...] = ()
    standing: Standing = field(default_factory=Standing)
    first_round: int | None = None
    steps: int = 0

    def named(self, clients: Sequence[int], *, start: bool = False) -> str:
        """Return how these clients, or parts of clients' data, are called."""
        return named(clients, self.parts, start=start)

    @property
    def empty(self) -> bool:
        """Whether its clients, asked to forget, had none of the data that it names: no other end comes so."""
        return self.state == "excluded" and self.came_from == "unlearning" and bool(self.parts)

    @property
    def owners(self) -> tuple[int, ...]:
        """The clients whose data are named in part."""
        return tuple(sorted({part.client for part in self.parts if part.number in self.clients}))

    @property
    def remaining(self) -> tuple[int, ...]:
        """The clients that no other request has forgotten."""
        return tuple(client for client in self.clients if client not in self.forgotten)


def ending(story: Story) -> Ending:
    """Return how a request's end is called, given what is known of its clients."""
    usual = ENDINGS[story.state]
    if story.never_took_part or story.empty:
        return NOTHING_TO_FORGET
    if not story.forgotten or not usual.short:
        return usual
    clients = sorted(story.forgotten)
    requests = {id_ for ids in story.forgotten.values() for id_ in ids}
    by = "other requests" if len(requests) > 1 else "another request"
    forgotten = f"{story.named(clients)} {'were' if len(clients) > 1 else 'was'} forgotten by {by}"
    not_forgotten = (
        f", {story.named(story.remaining)} not" if story.remaining and story.state != "withdrawn" else ""
    )
    return replace(usual, title=f"{usual.short}; {forgotten}{not_forgotten}")


def meaning(story: Story) -> list[str]:
    """Return the sentences that say what a request's end state means; one string per paragraph."""
    if ENDINGS[story.state].unlearned:
        start, are = story.named(story.clients, start=True), "are" if len(story.clients) > 1 else "is"
        step = _step(story)
        if story.parts:
            return [step, f"{_recovery(story)} {_goes_on(story)}"]
        return [step, f"{_recovery(story)} {start} {are} no longer asked to train."]
    if story.state == "duplicate":
        return [_duplicate(story, story.named(story.clients))]
    if not story.forgotten:
        return _not_unlearned(story)
    of_others = _forgotten_by_others(story)
    if not story.remaining:
        return [*of_others, "Nothing was removed from the shared model because of this request itself."]
    return [*of_others, *_not_unlearned(replace(story, clients=story.remaining))]


def _forgotten_by_others(story: Story) -> list[str]:
    """Say of each client that other requests forgot which ones; clients of the same requests together."""
    together: dict[tuple[str, ...], list[int]] = {}
    for client, requests in sorted(story.forgotten.items()):
        together.setdefault(requests, []).append(client)
    return [
        f"{story.named(clients, start=True)} {'have' if len(clients) > 1 else 'has'} been forgotten, not because "
        f"of this request but by request{'s' * (len(requests) > 1)} {joined(requests)}. How this "
        "request ended does not change that."
        for requests, clients in together.items()
    ]


def _not_unlearned(story: Story) -> list[str]:
    """Return what became of clients for which nothing was unlearned."""
    if story.empty:
        return [_empty(story)]
    several = len(story.clients) > 1 or bool(story.parts)
    who, start = story.named(story.clients), story.named(story.clients, start=True)
    left_out = f"From then on {who} {'are' if several else 'is'} no longer asked to train."
    if story.parts:
        who, start = f"the data concerned ({who})", f"The data concerned ({who})"
        left_out = f"From then on they are excluded from training. {_goes_on(story)}"
    them = "them" if several else "it"
    have = "have" if several else "has"
    are = "are" if several else "is"
    if story.never_took_part and story.parts:
        return [
            f"{start} never took part in training: no completed round used {them}. Nothing was "
            f"removed from the shared model, because nothing had been learned from {them}. {_goes_on(story)}"
        ]
    if story.never_took_part:
        return [
            f"{start} never took part in training: no completed round names {them}. Nothing was "
            f"removed from the shared model, because nothing had been learned from {them}. {start} {are} "
            f"excluded from training{_since(story.ended_round)}."
        ]
    if story.state == "excluded":
        return [
            f"{start} {have} NOT been forgotten. {start} {are} excluded from training{_since(story.ended_round)}, "
            f"but nothing was removed from the shared model: it still contains what it had learned from {them}.",
            _why_excluded(story),
        ]
    if story.state == "refused":
        return [f"{start} {have} NOT been forgotten.", *_refusal(story, left_out)]
    if story.state == "failed":
        return [
            f"{start} {have} NOT been forgotten. The request was given up{_since(story.ended_round, 'in')} because "
            "the clients concerned gave no valid answer in any attempt. Nothing was removed from the shared model: "
            f"it still contains what it learned from {them}. A new request will be served."
        ]
    return [
        f"The request was withdrawn before any step was taken. Nothing was removed from the shared model because of "
        f"it, and it does not exclude {who} from training."
    ]


def _goes_on(story: Story) -> str:
    """Say what becomes of the clients whose data were named in part: of each what is true of it."""
    how, said = story.standing, "These data are no longer trained on"
    if going_on := how.going_on(story.owners):
        go, their = ("go", "their") if len(going_on) > 1 else ("goes", "its")
        said += f"; {named(going_on)} {go} on with the rest of {their} data"
    said += "."
    for clients, becomes in (
        (
            how.forgotten,
            "been forgotten entirely because of another request, and {are} no longer asked to train",
        ),
        (how.left_out, "been excluded from training entirely because of another request"),
    ):
        if concerned := [client for client in clients if client in story.owners]:
            have, are = ("have", "are") if len(concerned) > 1 else ("has", "is")
            said += f" {named(concerned, start=True)} {have} {becomes.format(are=are)}."
    if asked := [client for client in how.asked if client in story.owners]:
        said += f" Another request, still open, asks to forget {named(asked)} entirely."
    return said


def _empty(story: Story) -> str:
    asked = story.standing.taken(story.clients)
    who = named(sorted({part.client for part in story.parts if part.number in asked}))
    return (
        f"There was nothing to forget: asked to take part in forgetting {story.named(asked)}, {who} answered that it "
        "had none of these data, or none that had not been forgotten before. Nothing was removed from the shared "
        "model because of this request. Only the client knows how many data there are; that there were none is its "
        "statement." + _never(story)
    )


def _step(story: Story) -> str:
    """Say what the step did to each of the request's clients and parts."""
    how = story.standing
    removed = [k for k in story.clients if k not in how.already and k not in how.never]
    when = _during(story.first_round, story.unlearned_round)
    said = f"{when} there was nothing left to remove for this request."
    if removed:
        said = (
            f"{when} the server removed from the shared model an estimate of what it had "
            f"learned from {story.named(removed)}, by the method described below."
        )
    if how.with_client:
        owners = sorted({part.client for part in story.parts if part.number in how.with_client})
        said += (
            f" This was done together with all data of {named(owners)}, as another request asked: "
            f"{story.named(how.with_client)} had no step of {'their' if len(how.with_client) > 1 else 'its'} own."
        )
    if how.already:
        said += (
            f" {story.named(how.already, start=True)} had already been forgotten because of another request; "
            "nothing is forgotten twice."
        )
    return said + _never(story)


def _never(story: Story) -> str:
    never = [client for client in story.standing.never if client in story.clients]
    return (
        f" {story.named(never, start=True)} never took part in training: there was nothing to remove."
        * bool(never)
    )


def _recovery(story: Story) -> str:
    # The rounds of the unlearning count, but for those that were in vain.
    counted = None if story.unlearned_round is None else story.unlearned_round - story.steps
    rounds = _during(counted, story.ended_round).removeprefix("In ")
    if story.state == "superseded":
        later = f" ({', '.join(story.others)})" if story.others else ""
        return (
            "Before the model had recovered, a later request was applied as well; from then on recovery was judged "
            f"for everything forgotten so far, and the certificate of that request{later} says how it ended."
        )
    if story.until == "max-rounds":
        return (
            f"Recovery was set to a fixed number of rounds ({rounds}); it ended with the last of them, regardless of "
            f"the model's {story.quality}."
        )
    points = f"{story.epsilon:g} point{'s' * (story.epsilon != 1)}"
    within = (
        f"within {points} of what it had been before" if story.epsilon else "no lower than it had been before"
    )
    if story.state == "forgotten":
        return f"In round {story.ended_round} the model's {story.quality} was {within}: recovered."
    return (
        f"Recovery ended at its cap of {story.max_rounds} rounds ({rounds}) before the model's {story.quality} "
        f"was {within}. The forgetting itself was applied in full."
    )


def _why_excluded(story: Story) -> str:
    if story.came_from == "scheduled":
        return f"This federation's method only excludes clients: {story.method}."
    return (
        "To be forgotten, a client must take part in one last exchange, and this did not happen: it could not be "
        "reached within the time limit, or the federation excludes unreachable clients at once. A new request will "
        "be served once the client can be reached."
    )


def _refusal(story: Story, left_out: str) -> list[str]:
    if story.came_from == "unlearning":
        tried = f"A step was tried{_since(story.ended_round, 'in')} and rolled back"
        if story.first_round not in (None, story.ended_round):
            when = _during(story.first_round, story.ended_round).removeprefix("In ")
            tried = f"A step was tried in {when}, and all of it was rolled back"
        return [
            f"{tried}, because a guard against harmful "
            "requests found that it would have damaged the shared model beyond a set limit. The model is as it was "
            "before the step. "
            + left_out
            + " An operator must decide what to do next; a new request will be served."
        ]
    return [
        "No step was taken and the shared model was not changed because of this request. The recorded reason is "
        "given below. For example, a federation's last remaining clients cannot be forgotten, as nobody would be "
        "left to train."
    ]


def _duplicate(story: Story, who: str) -> str:
    by = list(dict.fromkeys([*([story.same_as] if story.same_as else []), *story.others]))
    requests = f" by request{'s' * (len(by) > 1)} {', '.join(by)}" if by else ""
    return (
        f"Everything this request asks for was done{requests} and not repeated: {who} had already been unlearned. "
        "The certificate of that request says how it ended."
    )


def _during(first: int | None, last: int | None) -> str:
    """Return ``"In round 3"`` or ``"In rounds 3 to 5"``."""
    return f"In round {last}" if first in (None, last) else f"In rounds {first} to {last}"


def _since(round: int | None, word: str = "from") -> str:
    return "" if round is None else f" {word} round {round}{' on' if word == 'from' else ''}"
