"""The clerk of a live federation: after each round it signs the trail, puts away what is to go, and certifies.

Everything it does may be cut off anywhere and is simply done again. What has to be known before files go (hashes of
weights, names of files) is noted in the ledger first; a certificate is written when the rest is done.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fedunlearn.certificates import certificate, retention, retention_policy
from fedunlearn.certificates.facts import DAMAGED, GONE, no_weights, rounds_of_weights
from fedunlearn.certificates.kept import Listing
from fedunlearn.certificates.keys import SigningKey
from fedunlearn.certificates.retention_policy import SuperLink
from fedunlearn.certificates.seals import Sealer
from fedunlearn.certificates.signing import HEAD, sign
from fedunlearn.certificates.sources import Sources
from fedunlearn.certificates.superlink_messages import purge_messages
from fedunlearn.certificates.unlearning_rounds import first_of
from fedunlearn.config import Experiment
from fedunlearn.errors import RunError, UserError
from fedunlearn.requests.chain import Head, SignedHead
from fedunlearn.requests.ledger import Ledger
from fedunlearn.requests.records import RequestRecord
from fedunlearn.requests.transitions import ENDS
from fedunlearn.runs.checkpoints import Checkpoints, Prepared, weights_hash
from fedunlearn.text_files import resolved

log = logging.getLogger("fedunlearn")

AT_ONCE = 16
"""So many requests are dealt with at a time; whoever asks waits for the ledger while they are noted, or published."""

_FLOWER_RUN = re.compile(r"flower-run-(\d+)\b")


def signed_head_document(branch: str, head: Head, at: float) -> dict[str, Any]:
    """Return what is signed of a head."""
    return {"federation": branch, "entry": head.entry, "hash": head.hash, "at": at}


class Clerk:
    """Attends after every round of a live federation; see the module.

    Parameters
    ----------
    run_folder
        The run directory.
    ledger, branch
        Its ledger, and the federation's name there. Where the ledger's holder has a lease, all that the clerk
        writes and removes is fenced by it.
    experiment
        A live experiment: ``[retention]`` is read from it.
    key
        What the trail and certificates are signed with; None: they are not signed, and say so.
    superlink_database
        The file given to ``flower-superlink --database``, if it can be reached from here.
    clock
        Unix seconds.
    """

    def __init__(
        self,
        run_folder: Path,
        ledger: Ledger,
        branch: str,
        experiment: Experiment,
        key: SigningKey | None = None,
        *,
        superlink_database: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._run = run_folder
        self._ledger = ledger
        self._branch = branch
        self._experiment = experiment
        self._key = key
        self._database = superlink_database
        self._clock = clock
        self._checkpoints = Checkpoints(run_folder / retention.CHECKPOINTS, branch)
        self._sealer = Sealer(run_folder, ledger, branch, key, clock)
        self._resumed = self._begun = False
        self._hashes: dict[int, str] = {}
        self._first_rounds: dict[int, int] = {}  # last round of an unlearning → its first
        self._settled: Head | None = None  # up to here there is nothing left to do
        self._certified: set[str] | None = None

    def attend(self, round: int) -> None:
        """Do what is to be done after a round; where nothing has happened to any request, nothing.

        To be called while no message of the federation is under way. A disk that refuses a certificate, or files
        that cannot be put away, do not stop the federation: it is logged, and tried again after the next round.

        Raises
        ------
        FencedError
            Another server has taken over; nothing more was done.
        """
        head = self._ledger.head(self._branch)
        try:
            if not self._begun:
                self._begin(round)
            if head is None or head == self._settled:
                return
            done = self._serve(round)
        except (OSError, UserError) as error:
            log.error("round %d: certificates are postponed to the next round: %s", round, error)
            self._certified = None  # one that cannot be read is set aside then
            return
        if done:
            self._settled = head  # what came in since then is seen the next time

    def seal(self, prepared: Prepared, kept: Mapping[str, str], *, complete: bool) -> None:
        """Seal a round's checkpoint: before it is published, and once more, `complete`, when it is.

        With it what the round keeps for later ones: its place in the history → SHA-256 (hex).
        """
        self._sealer.seal(prepared.round, prepared.account["sha256"], kept, complete=complete)

    def _begin(self, round: int) -> None:
        """Do what a server does once: bring seals up to date, and put away again what somebody has put back.

        That is looked for until the weights are as far as they had been: restored from a copy, a federation begins
        with a checkpoint from before a forgetting, and does without it only once there is a later one.
        """
        if not self._resumed:
            self._sealer.resume(round)
            self._resumed = True
        certified = self._certificates()
        ended = [record for record in self._ledger.requests(self._branch, ENDS) if record.id in certified]
        files: set[Path] = set()
        listing = Listing()
        for record in ended:
            found = self._files(record, listing)
            again = {path for path in found if not retention.is_temporary(path.name)} - files
            for path in sorted(again):
                log.warning(
                    "%s: is back, although request %s had it removed; removing it again", path, record.id
                )
            files |= again
        self._remove(files)
        self._begun = all((record.unlearned_round or 0) <= round for record in ended)

    def _sign(self, head: Head, key: SigningKey) -> None:
        at = float(self._clock())
        signature = sign(HEAD, signed_head_document(self._branch, head, at), key)
        self._ledger.add_signed_head(
            self._branch, SignedHead(head.entry, head.hash, at, key.key_id, signature)
        )

    def _serve(self, round: int) -> bool:
        """Sign, note hashes, put away, certify; return whether nothing was left open."""
        certified = self._certificates()
        records = self._ledger.requests(self._branch, [*ENDS, "recovering"])
        for record in records:
            if not record.ended:
                self._note_weights(record)
        pending = [record for record in records if record.ended and record.id not in certified]
        accounts = self._put_away(pending) if pending else {}
        # After the requests: the head that is signed stands for every end that is certified.
        head = self._ledger.head(self._branch)
        problems = self._ledger.check_trail(self._branch)
        if problems:
            log.error("the trail of %s is damaged and was not signed: %s", self._branch, "; ".join(problems))
        elif self._key is not None and head is not None:
            self._sign(head, self._key)
        if not pending or head is None:
            return True
        everything = Sources(self._run, self._ledger, self._branch, round, head, problems)
        pending.sort(key=lambda record: record.arrival)
        for first in range(0, len(pending), AT_ONCE):
            self._certify(pending[first : first + AT_ONCE], head, everything, accounts, certified)
        return all(record.id in certified for record in pending)

    def _certificates(self) -> set[str]:
        """Return the requests whose certificate leaves nothing to be done; read once from the disk."""
        if self._certified is None:
            certified = set()
            certificate.sweep(self._run)
            for id_, path in certificate.issued(self._run).items():
                try:
                    document = certificate.read(path)
                except UserError as error:
                    log.error("%s; it is set aside and issued again", error)
                    path.replace(path.with_suffix(".damaged"))
                    continue
                if not path.with_suffix(".html").is_file():
                    certificate.write_page(path, document)
                unsigned = document["signature"]["value"] is None
                if not document["data"]["open"] and not (unsigned and self._key is not None):
                    certified.add(id_)
            self._certified = certified
        return self._certified

    # -- weights --------------------------------------------------------------------------------------------

    def _note_weights(self, record: RequestRecord) -> dict[str, Any]:
        """Return the hashes of the weights before and after the step and at the end; those found are noted."""
        noted = dict(self._ledger.measures(self._branch, record.id).get("weights", {}))
        found: dict[str, Any] = {}
        for name, round in self._rounds_of_weights(record).items():
            if noted.get(name, {}).get("sha256"):
                found[name] = noted[name]
            elif round is None:
                found[name] = no_weights(name)
            else:
                hash_, why_not = self._hash(round)
                found[name] = {"round": round, "sha256": hash_, "reason": why_not}
        known = {name: value for name, value in found.items() if value["sha256"]}
        if known != noted:
            self._ledger.note_measures(self._branch, record.id, "weights", known)
        return found

    def _rounds_of_weights(self, record: RequestRecord) -> dict[str, int | None]:
        # A plan may name very many: of a round it is looked at once, and again for one that was refused.
        ended = record.ended_round if record.state == "refused" else None
        at_end = None if ended is None else self._ledger.plan(self._branch, ended)
        return rounds_of_weights(record, at_end, self._first_round)

    def _first_round(self, last: int) -> int:
        if last not in self._first_rounds:
            self._first_rounds[last] = first_of(last, partial(self._ledger.plan, self._branch))
        return self._first_rounds[last]

    def _hash(self, round: int | None) -> tuple[str | None, str | None]:
        if round is None:
            return None, None
        if round not in self._hashes:
            if not self._checkpoints.path(round).is_file():
                return None, GONE
            try:
                snapshot = self._checkpoints.load(round)
            except RunError:
                return None, DAMAGED
            self._hashes[round] = weights_hash(snapshot.vector, snapshot.buffers)
        return self._hashes[round], None

    # -- retention ------------------------------------------------------------------------------------------

    def _put_away(self, pending: Sequence[RequestRecord]) -> dict[str, dict[str, Any]]:
        """Put away what the ended requests no longer allow to be kept; return what their certificates say of it."""
        names: dict[str, list[str]] = {}
        everything: set[Path] = set()
        listing = Listing()
        for first in range(0, len(pending), AT_ONCE):
            together = pending[first : first + AT_ONCE]
            found = {record.id: self._files(record, listing) for record in together}
            for record in together:
                for round in self._rounds_of_weights(record).values():
                    self._hash(round)  # from the disk, while nobody has to wait
            with self._ledger.batch():
                for record in together:
                    self._note_weights(record)
                    names[record.id] = self._note_files(record, found[record.id])
            everything.update(*found.values())
        self._remove(everything)
        superlink = self._superlink()
        untouched = superlink.untouched("nothing is removed because of a request that ended like this")
        wanted = any(map(retention_policy.concerned, pending))
        messages = self._purge_messages(superlink) if wanted else untouched
        return {
            record.id: retention_policy.account(
                self._run,
                self._experiment,
                record,
                names[record.id],
                messages if retention_policy.concerned(record) else untouched,
            )
            for record in pending
        }

    def _files(self, record: RequestRecord, listing: Listing) -> list[Path]:
        return retention_policy.files_to_put_away(self._run, self._branch, self._experiment, record, listing)

    def _note_files(self, record: RequestRecord, files: Sequence[Path]) -> list[str]:
        """Note which files are to go for a request, and return them with those that were noted before."""
        noted = self._ledger.measures(self._branch, record.id).get("retention", {}).get("put_away", [])
        names = sorted({*noted, *(str(path.relative_to(self._run)) for path in files)})
        if names != noted:
            self._ledger.note_measures(self._branch, record.id, "retention", {"put_away": names})
        return names

    def _remove(self, files: Collection[Path]) -> None:
        settings = self._experiment.retention
        assert settings is not None, "a live experiment has [retention]"
        if not files:
            return
        with self._ledger.fenced():
            if settings.earlier == "quarantine":
                folder = retention.quarantine_folder(self._run, settings.quarantine)
                retention.quarantine(sorted(files), self._run, folder)
            else:
                retention.purge(sorted(files))

    def _superlink(self) -> SuperLink:
        holders = (server.holder for server in self._ledger.servers(self._branch))
        runs = (match for match in map(_FLOWER_RUN.search, holders) if match)
        return SuperLink(frozenset(int(match[1]) for match in runs), self._database)

    def _purge_messages(self, superlink: SuperLink) -> dict[str, Any]:
        assert self._experiment.retention is not None
        if self._experiment.retention.earlier == "keep":
            return superlink.untouched("the federation keeps everything")
        if superlink.database is None or not superlink.runs:
            return superlink.untouched()
        return superlink.purged(purge_messages(superlink.database, superlink.runs))

    # -- certificates ---------------------------------------------------------------------------------------

    def _certify(
        self,
        pending: Sequence[RequestRecord],
        head: Head,
        known: Sources,
        accounts: Mapping[str, Mapping[str, Any]],
        certified: set[str],
    ) -> None:
        """Write the certificates of some requests, and note which leave nothing to be done.

        They are composed and written while anybody may ask; only their names are given while nobody can take over.
        """
        prepared: dict[str, certificate.Prepared] = {}
        done = []
        try:
            for record in pending:
                account = accounts[record.id]
                if (document := self._composed(record, head, known, account)) is not None:
                    prepared[record.id] = certificate.prepare(self._run, document)
                    known.written[record.id] = document
                if not account["open"]:
                    done.append(record.id)
        except (
            OSError,
            UserError,
        ):  # a disk that is full: those that are on it already are published all the same
            self._publish(prepared, known)
            raise
        self._publish(prepared, known)
        certified.update(done)

    def _publish(self, prepared: Mapping[str, certificate.Prepared], known: Sources) -> None:
        with self._ledger.fenced():
            certificate.publish(list(prepared.values()))
        for id_, one in prepared.items():
            known.issued[id_] = one.path
            log.info("request %s: %s; certificate %s", id_, known.relations[id_].state, one.path)
        known.written.clear()

    def _composed(
        self, record: RequestRecord, head: Head, known: Sources, account: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Return a request's certificate; None where the one that there is says the same already."""
        before = certificate.read(known.issued[record.id]) if record.id in known.issued else None
        if before is not None and before["data"]["open"] and account["open"]:
            return None  # still hindered: no edition after every round
        quarantine = account["quarantine"]
        evidence = certificate.Evidence(
            run=resolved(self._run).name,
            experiment=self._experiment,
            branch=self._branch,
            record=record,
            entries=known.entries.get(record.id, ()),
            relations=known.relations,
            plans=known.plans,
            weights=self._note_weights(record),
            measures=self._ledger.measures(self._branch, record.id),
            kept=retention.inventory(
                self._run,
                self._branch,
                clients={*record.clients, *record.owners},
                unlearned_round=record.unlearned_round,
                quarantined=None if quarantine is None else Path(quarantine),
                numbers=known.numbers,
                spared_from=retention_policy.spared_from(record),
                listing=known.listing,
            ),
            retention=account,
            head=head,
            round=known.round,
            problems=known.problems,
            issued_at=self._clock(),
            earlier=known.earlier(record),
        )
        return certificate.compose(evidence, key=self._key, replaces=before)
