"""What goes over the wire, as the OpenAPI page shows it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fedunlearn.requests import STATES, Receipt, RequestRecord
from fedunlearn.roster import Actor

State = Literal[STATES]  # type: ignore[valid-type]  # the ledger's table is the one list there is
MOST_CLIENTS = 4096
ClientNumber = Annotated[int, Field(ge=0, lt=2**31, strict=True)]


class Ask(BaseModel):
    """A request to forget."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"clients": [3]}]})
    clients: list[ClientNumber] = Field(
        min_length=1, max_length=MOST_CLIENTS, description="Numbers of the clients to forget, together."
    )


class ReceiptAnswer(BaseModel):
    """What the door hands out for a request that is on the disk."""

    request_id: str
    state: State
    clients: list[int] = Field(description="Sorted; each client once.")
    same_as: str | None = Field(description="An earlier open request that names all these clients.")
    arrived_at: float = Field(description="When it was recorded: seconds since 1970-01-01 UTC.")
    head: str = Field(
        description="The audit trail's head with this request in it, NUMBER:HASH. Keep it: "
        "`fedunlearn requests RUN --verify --head NUMBER:HASH` finds out later whether the trail still has it."
    )
    repeated: bool = Field(description="The Idempotency-Key had been used for this request before.")
    served: bool = Field(description="Whether a server is at work; the request waits for one otherwise.")

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
        )


class RequestAnswer(BaseModel):
    """A request and what has become of it."""

    request_id: str
    state: State
    clients: list[int]
    same_as: str | None
    arrived_at: float = Field(description="When it was recorded: seconds since 1970-01-01 UTC.")
    actor: str | None = Field(description="Who asked; clients are told of themselves only.")
    unlearned_round: int | None = Field(description="The round in which the step was applied.")
    ended_round: int | None = Field(description="The round in which the request ended.")

    @classmethod
    def of(cls, record: RequestRecord, reader: Actor) -> RequestAnswer:
        """Return a request as the reader may see it."""
        told = reader.role == "operator" or record.actor == str(reader)
        return cls(
            request_id=record.id,
            state=record.state,
            clients=list(record.clients),
            same_as=record.same_as,
            arrived_at=record.arrived_at,
            actor=record.actor if told else None,
            unlearned_round=record.unlearned_round,
            ended_round=record.ended_round,
        )


class RequestList(BaseModel):
    """Requests in order of arrival."""

    requests: list[RequestAnswer]
    next: int | None = Field(description="Send it as `after` to get those that follow; null at the end.")


class Health(BaseModel):
    """Whether the door can take requests."""

    status: Literal["ok", "idle", "failing"] = Field(description="idle: no federation has begun yet.")
    problems: list[str]


class Problem(BaseModel):
    """Every refusal."""

    error: str = Field(description="One line.")
