"""Purging a real SuperLink's database: after it, the raw bytes of a client's update are nowhere in its files."""

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.common.constant import NOOP_FLWR_AID, SUPERLINK_NODE_ID
from flwr.server.superlink.linkstate import LinkState
from flwr.supercore.constant import NOOP_FEDERATION_ID
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.config_loader import get_federation_manager, get_objectstore_linkstate_factories

from fedunlearn.certificates.superlink_messages import purge_messages

UPDATE = b"UPDATE OF CLIENT"
WEIGHTS = b"EARLIER  WEIGHTS"


class SuperLink:
    """The state that a running SuperLink keeps open, and the messages that pass through it."""

    def __init__(self, database: Path) -> None:
        self.database = database
        _, factory = get_objectstore_linkstate_factories(str(database), get_federation_manager())
        self.state: LinkState = factory.state()
        # As in a build of SQLite that does not wipe what it deletes: not all do.
        self.state.query("PRAGMA secure_delete = OFF")  # type: ignore[attr-defined]
        self.node = self.state.create_node(NOOP_FLWR_AID, "node", secrets.token_bytes(8), 30)
        self.state.acknowledge_node_heartbeat(self.node, 1e6)

    def close(self) -> None:
        for part in (self.state, self.state.object_store):
            part._engine.dispose()  # type: ignore[attr-defined]

    def new_run(self) -> int:
        return self.state.create_run(
            None, None, None, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, "flwr-serverapp"
        )

    def instruct(self, run: int, marker: bytes, kind: str = "train") -> Message:
        identify(run, SUPERLINK_NODE_ID)
        message = Message(_content(marker), self.node, kind, group_id="3")
        self._store(run, message)
        return message

    def reply(self, run: int, to: Message, marker: bytes) -> Message:
        assert self.state.get_message_ins(node_id=self.node, limit=1)
        identify(run, self.node)
        message = Message(_content(marker), reply_to=to)
        self._store(run, message)
        return message

    def _store(self, run: int, message: Message) -> None:
        message.metadata.__dict__["_message_id"] = message.object_id
        session = self.state.start_session(run)
        stored, missing = self.state.store_message_and_object_tree(message, get_object_tree(message), session)
        assert stored
        for object_id, content in get_all_nested_objects(message).items():
            if object_id in missing:
                assert self.state.store_object(run, session, object_id, content.deflate())

    def raw(self, marker: bytes) -> int:
        """How often the marker stands in the database's files, read as bytes."""
        files = self.database.parent.glob(self.database.name + "*")
        return sum(path.read_bytes().count(marker) for path in files)


def _content(marker: bytes) -> RecordDict:
    values = np.frombuffer(marker * 2048, dtype=np.uint8)
    return RecordDict({"arrays": ArrayRecord({"parameters": Array(values)})})


def identify(run: int | None, node: int | None) -> None:
    TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = 1, run, node


@pytest.fixture(scope="module")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SuperLink's database with nothing in it: making one takes Flower's whole history of schemas."""
    database = tmp_path_factory.mktemp("new") / "state.db"
    SuperLink(database).close()
    return database


@pytest.fixture
def superlink(new_database: Path, tmp_path: Path) -> Iterator[SuperLink]:
    before = TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id
    shutil.copy(new_database, tmp_path / "state.db")
    superlink = SuperLink(tmp_path / "state.db")
    yield superlink
    superlink.close()
    TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = before


def test_messages_that_were_never_fetched_are_gone_to_the_last_byte(superlink: SuperLink) -> None:
    run = superlink.new_run()
    instruction = superlink.instruct(run, WEIGHTS)
    superlink.reply(run, instruction, UPDATE)
    assert superlink.raw(UPDATE) and superlink.raw(WEIGHTS)
    purge = purge_messages(superlink.database, [run])
    assert purge.problem is None and purge.messages == 2 and purge.objects > 2
    assert superlink.raw(UPDATE) == superlink.raw(WEIGHTS) == 0
    assert len(superlink.state.object_store) == 0
    superlink.reply(run, superlink.instruct(run, b"NEW WEIGHTS TEXT"), b"NEW  UPDATE TEXT")  # it still works


def test_what_flower_deleted_itself_is_wiped_from_free_pages_and_log(superlink: SuperLink) -> None:
    run = superlink.new_run()
    instruction = superlink.instruct(run, WEIGHTS)
    reply = superlink.reply(run, instruction, UPDATE)
    for message in (instruction, reply):
        superlink.state.object_store.delete(message.metadata.message_id)
    superlink.state.delete_messages({instruction.metadata.message_id})
    assert len(superlink.state.object_store) == 0
    assert superlink.raw(UPDATE)  # deleted, and there all the same
    purge = purge_messages(superlink.database, [run])
    assert purge.problem is None and (purge.messages, purge.objects) == (0, 0)
    assert superlink.raw(UPDATE) == superlink.raw(WEIGHTS) == 0


def test_other_runs_keep_their_messages_and_contents_that_both_have(superlink: SuperLink) -> None:
    ours, theirs = superlink.new_run(), superlink.new_run()
    superlink.reply(ours, superlink.instruct(ours, WEIGHTS), UPDATE)
    kept = superlink.instruct(theirs, WEIGHTS)
    answer = superlink.reply(theirs, kept, b"UPDATE OF OTHERS")
    assert purge_messages(superlink.database, [ours]).problem is None
    assert superlink.raw(UPDATE) == 0
    for message in (kept, answer):
        for object_id, content in get_all_nested_objects(message).items():
            assert superlink.state.object_store.get(object_id) == content.deflate()
    assert superlink.state.num_message_ins() == superlink.state.num_message_res() == 1
    assert purge_messages(superlink.database, [theirs]).problem is None
    assert superlink.raw(WEIGHTS) == superlink.raw(b"UPDATE OF OTHERS") == 0


def test_a_question_that_nobody_waits_for_is_answered_all_the_same(superlink: SuperLink) -> None:
    run = superlink.new_run()
    superlink.reply(run, superlink.instruct(run, WEIGHTS), UPDATE)
    question = superlink.instruct(run, b"WHOM DO YOU SERV", "query")
    assert purge_messages(superlink.database, [run]).messages == 2
    assert superlink.raw(UPDATE) == superlink.raw(WEIGHTS) == 0
    answer = superlink.reply(run, question, b"CLIENT NUMBER 13")
    assert purge_messages(superlink.database, [run]).messages == 0
    asked = {question.metadata.message_id}
    assert [reply.metadata.message_id for reply in superlink.state.get_message_res(asked, run)] == [
        answer.metadata.message_id
    ]
    for object_id, content in get_all_nested_objects(answer).items():
        assert superlink.state.object_store.get(object_id) == content.deflate()


def test_a_late_answer_to_a_purged_message_is_turned_away(superlink: SuperLink) -> None:
    run = superlink.new_run()
    instruction = superlink.instruct(run, WEIGHTS)
    purge_messages(superlink.database, [run])
    identify(run, superlink.node)
    late = Message(_content(UPDATE), reply_to=instruction)
    late.metadata.__dict__["_message_id"] = late.object_id
    session = superlink.state.start_session(run)
    assert superlink.state.store_message_and_object_tree(late, get_object_tree(late), session) == (False, [])
    assert superlink.raw(UPDATE) == 0


def test_a_reader_that_holds_the_log_is_a_problem_that_is_said(superlink: SuperLink) -> None:
    run = superlink.new_run()
    superlink.reply(run, superlink.instruct(run, WEIGHTS), UPDATE)
    with superlink.state.session() as session:  # type: ignore[attr-defined]
        session.connection().exec_driver_sql("BEGIN")
        session.connection().exec_driver_sql("SELECT count(*) FROM objects").fetchall()
        purge = purge_messages(superlink.database, [run], wait=0.05)
    assert purge.problem is not None
    assert superlink.raw(UPDATE)
    assert purge_messages(superlink.database, [run]).problem is None
    assert superlink.raw(UPDATE) == 0


def test_what_is_no_superlink_database_is_left_alone(tmp_path: Path) -> None:
    assert "no such file" in str(purge_messages(tmp_path / "none.db", [1]).problem)
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text.db").write_bytes(b"not a database at all, but rather long text" * 100)
    assert purge_messages(tmp_path / "text.db", [1]).problem
    (tmp_path / "empty.db").touch()
    assert "lacks message_ins" in str(purge_messages(tmp_path / "empty.db", [1]).problem)
