"""What goes over the wire, as the OpenAPI page shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fedunlearn.deployment.roster import Actor
from fedunlearn.parts import Part
from fedunlearn.requests import STATES, Receipt, RequestRecord
from fedunlearn.requests.forget_target import Samples, asked_classes, asked_samples

State = Literal[STATES]  # type: ignore[valid-type]  # the ledger's table is the one list there is
MOST_CLIENTS = 4096
MOST_CLASSES = 4096
MOST_ROWS = 16384
Row = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
Rows = Annotated[list[Row], Field(min_length=1, max_length=MOST_ROWS)]
RowsOf = Annotated[str, Field(pattern="^(0|[1-9][0-9]{0,9})$")]
Share = Annotated[float, Field(gt=0, le=1, strict=True)]
ClassNumber = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
_SAMPLES = "Which of their samples it names; null or absent: all."
_CLASSES = "Which classes it names; null or absent: all."
ClientNumber = Annotated[int, Field(ge=0, lt=2**31, strict=True)]


class Ask(BaseModel):
    """A request to forget: whole clients, or parts of their data."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"clients": [3]},
                {"clients": [3], "samples": 0.5},
                {"clients": [3], "samples": [4, 17, 33]},
                {"classes": [2]},
            ]
        },
    )
    clients: Annotated[list[ClientNumber], Field(min_length=1, max_length=MOST_CLIENTS)] | None = Field(
        default=None,
        description="Numbers of the clients to forget together; may be left out with classes, which then means every "
        "client.",
    )
    samples: Share | Rows | dict[RowsOf, Rows] | None = Field(
        default=None,
        description="Only these samples of theirs: a share, drawn with the experiment's seed; rows of a single "
        "client, counted from 0; or rows by client.",
    )
    classes: Annotated[list[ClassNumber], Field(min_length=1, max_length=MOST_CLASSES)] | None = Field(
        default=None, description="Only samples of these classes."
    )

    @property
    def rows(self) -> Samples:
        """The samples with numbers of clients, as the ledger's intake takes them."""
        if isinstance(self.samples, dict):
            return {int(client): rows for client, rows in self.samples.items()}
        return self.samples


class ReceiptAnswer(BaseModel):
    """What the door hands out for a request that is on the disk."""

    request_id: str
    state: State
    clients: list[int] = Field(description="Sorted; each client once.")
    samples: float | list[int] | dict[str, list[int]] | None = Field(default=None, description=_SAMPLES)
    classes: list[int] | None = Field(default=None, description=_CLASSES)
    same_as: str | None = Field(description="An earlier open request that names all of this.")
    arrived_at: float = Field(description="When it was recorded: seconds since 1970-01-01 UTC.")
    head: str = Field(
        description="The audit trail's head with this request in it, NUMBER:HASH. Keep it: "
        "`fedunlearn requests RUN --verify --head NUMBER:HASH` checks later that the trail still has it."
    )
    repeated: bool = Field(description="The Idempotency-Key had already been used for this request.")
    served: bool = Field(description="Whether a server is running; otherwise the request waits for one.")

    @classmethod
    def of(cls, receipt: Receipt, *, served: bool) -> ReceiptAnswer:
        """Return the ledger's receipt as it is sent."""
        return cls(
            request_id=receipt.request_id,
            state=receipt.state,
            clients=list(receipt.clients),
            same_as=receipt.same_as,
            arrived_at=receipt.arrived_at,
            head=str(receipt.head),
            repeated=receipt.repeated,
            served=served,
            **_of_parts(receipt.parts),
        )


class RequestAnswer(BaseModel):
    """A request and what has become of it."""

    request_id: str
    state: State
    clients: list[int]
    samples: float | list[int] | dict[str, list[int]] | None = Field(default=None, description=_SAMPLES)
    classes: list[int] | None = Field(default=None, description=_CLASSES)
    same_as: str | None
    arrived_at: float = Field(description="When it was recorded: seconds since 1970-01-01 UTC.")
    actor: str | None = Field(description="Who asked; clients see only themselves.")
    unlearned_round: int | None = Field(description="The round in which the step was applied.")
    ended_round: int | None = Field(description="The round in which the request ended.")

    @classmethod
    def of(cls, record: RequestRecord, reader: Actor) -> RequestAnswer:
        """Return a request as the reader may see it."""
        told = reader.role == "operator" or record.actor == str(reader)
        return cls(
            request_id=record.id,
            state=record.state,
            clients=list(record.owners),
            same_as=record.same_as,
            arrived_at=record.arrived_at,
            actor=record.actor if told else None,
            unlearned_round=record.unlearned_round,
            ended_round=record.ended_round,
            **_of_parts(record.parts),
        )


class RequestList(BaseModel):
    """Requests in order of arrival."""

    requests: list[RequestAnswer]
    next: int | None = Field(description="Send it as `after` to get the next ones; null at the end.")


class Health(BaseModel):
    """Whether the door can take requests."""

    status: Literal["ok", "idle", "failing"] = Field(description="idle: no federation has started yet.")
    problems: list[str]


class Problem(BaseModel):
    """Every refusal."""

    error: str = Field(description="One line.")


def _of_parts(parts: Sequence[Part]) -> dict[str, Any]:
    """Return what a request for parts of clients' data names of them; nothing of one for whole clients."""
    return {"samples": asked_samples(parts), "classes": asked_classes(parts)} if parts else {}
