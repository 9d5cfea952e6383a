"""Which steps bring a request in the ledger to what the checkpoint says about it.

The checkpoint holds the weights, so it decides what has been applied. The ledger may be *behind* it (killed
between the checkpoint and the ledger's commit) or *ahead* (a plan was committed and the round not finished,
a requester withdrew meanwhile, or an older checkpoint had to be taken): ahead is left alone, because the
planned rounds are executed again as planned, and their transitions are then recognised as already made.
"""

from fedunlearn.requests.records import Move, RequestRecord
from fedunlearn.requests.transitions import LedgerError, path

RECONCILED = "reconciled with the checkpoint"
"""The remark of a step that the ledger learns from a checkpoint."""


def moves_to(record: RequestRecord, state: str, round: int, why: str = RECONCILED) -> list[Move]:
    """Return the legal steps from `record` to the checkpoint's `state`.

    Parameters
    ----------
    record
        The request as the ledger has it.
    state, round
        The state the checkpoint gives it, and the round in which it entered that state (the round of the
        checkpoint itself serves as well).
    why
        The remark of the last step.

    Returns
    -------
    list of Move
        Empty when both agree or the ledger is ahead.

    Raises
    ------
    LedgerError
        Neither can have become the other: the two files are not of one run.
    """
    if record.state == state:
        return []
    forward, backward = path(record.state, state), path(state, record.state)
    # waiting, scheduled and unlearning form a loop: there only the rounds tell who is ahead.
    later = record.state_round is not None and record.state_round > round
    if backward is not None and (later or forward is None):
        return []
    if forward is None:
        raise LedgerError(
            f"request {record.id!r}: the ledger says {record.state!r} and the checkpoint {state!r}, "
            "and no sequence of transitions joins them; do both files belong to this run?"
        )
    moves = []
    for step in forward:
        # A scheduled request was unlearned in the round of its plan, however late the ledger learns of it.
        planned = record.state == "scheduled" and step == "unlearning"
        at = record.state_round if planned else round
        moves.append(Move(record.id, step, at, why if step == state else RECONCILED))
    return moves
