"""A partition read from a file: its rows count in the source's whole training split, before validation."""

import json

import numpy as np
import pytest

from fedunlearn.config import DataConfig
from fedunlearn.data import load_federated
from fedunlearn.data.digits import digits
from fedunlearn.data.partition_file import FileSettings, from_file
from fedunlearn.errors import ConfigError, UserError
from tests.oracles.partition_by_lists import from_file as from_lists


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(content):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "p.json").write_text(text, encoding="utf-8")
        return "p.json"

    return write


def deal(path, num_clients=2, rows=range(10), n=10):
    source_rows = np.array(list(rows), dtype=np.int64)
    return from_file(num_clients, settings=FileSettings(path), source_rows=source_rows, num_source_rows=n)


def test_lists_become_sorted_parts(write):
    first, second = deal(write({"clients": [[4, 0, 9], [1, 2]]}))
    assert (first.tolist(), second.tolist()) == ([0, 4, 9], [1, 2])


def test_rows_held_out_for_validation_are_taken_away_and_the_rest_renumbered(write):
    # Rows 0, 4 and 5 are validation; row 9 is now the seventh training row, number 6.
    first, second = deal(write({"clients": [[4, 0, 9], [1, 5]]}), rows=[1, 2, 3, 6, 7, 8, 9])
    assert (first.tolist(), second.tolist()) == ([6], [0])


def test_clients_see_the_images_their_file_names_whatever_the_seed(write):
    path = write({"clients": [list(range(0, 1400, 2)), list(range(1, 1400, 2))]})
    source = digits()
    for seed in (1, 2):
        config = DataConfig.of(source="digits", partition="file", partition_file=path, validation=0.25)
        data = load_federated(config, 2, seed)
        for client in (0, 1):
            images, _ = data.client(client)
            own = source.normalise(source.train_images[client:1400:2], images.dtype)
            mine = {image.numpy().tobytes() for image in images}
            assert mine <= {image.numpy().tobytes() for image in own}
            assert 450 < len(images) < 600  # of 700, a quarter is held out
        assert len(data.all_but([])) == sum(map(len, data.clients)) < len(data.train_labels)


def test_a_file_is_dealt_as_by_lists(write):
    rng = np.random.default_rng(3)
    lists = [piece.tolist() for piece in np.array_split(rng.permutation(500), 40)]
    lists[7].pop()  # a row that nobody lists
    kept = np.sort(rng.permutation(500)[:450])
    dealt = deal(write({"clients": lists}), num_clients=40, rows=kept, n=500)
    assert [rows.tolist() for rows in dealt] == from_lists(lists, kept.tolist())
    assert len(dealt.rows) in (449, 450)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON (Expecting property name enclosed in double quotes: line 1 column 2)"),
        (
            '{"clients": [[0], [1]], "clients": [[1], [0]]}',
            "cannot be read as JSON (the key 'clients' appears twice)",
        ),
        ("[" * 100_000, "cannot be read as JSON (nested deeper than 64)"),
        (
            '{"clients": [[' + "9" * 5000 + "], [1]]}",
            f"cannot be read as JSON (the integer '{'9' * 20}…{'9' * 8}' is beyond 64 bits)",
        ),
        ('{"clients": [[NaN], [1]]}', "cannot be read as JSON (NaN is not a number)"),
        (
            {"clients": [[0], [[7] * 99]]},
            "client 1 lists [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, …; rows are whole numbers",
        ),
        ({"clients": [[0], [None]]}, "client 1 lists null; rows are whole numbers"),
        ({"clients": [[0], [1.0]]}, "client 1 lists 1.0; rows are whole numbers"),
        ({"clients": {"0": [0], "1": [1]}}, 'must hold {"clients": [[row, …], …]}, one list per client'),
        ([[0], [1]], 'must hold {"clients": [[row, …], …]}, one list per client'),
        ({"clients": [[0], 1]}, 'must hold {"clients": [[row, …], …]}, one list per client'),
        ({"clients": [[0]]}, "lists 1 client, federation.num-clients is 2"),
        ({"clients": [[0, 1], [2, 1]]}, "client 1 lists row 1 and so does client 0; keep one of the two"),
        ({"clients": [[0, 0], [1]]}, "client 0 lists row 0 twice; keep one of the two"),
        ({"clients": [[0], [10]]}, "client 1 lists row 10; rows are 0 to 9"),
        ({"clients": [[-1], [1]]}, "client 0 lists row -1; rows are 0 to 9"),
        ({"clients": [[True], [1]]}, "client 0 lists true; rows are whole numbers"),
        ({"clients": [[0.5], [1]]}, "client 0 lists 0.5; rows are whole numbers"),
        ({"clients": [[0], ["1"]]}, 'client 1 lists "1"; rows are whole numbers'),
        (
            {"clients": [[0], []]},
            "leaves client 1 (of 2) without data; "
            "list rows outside the validation split, or lower data.validation",
        ),
    ],
)
def test_a_broken_file_is_refused_by_name(write, content, message):
    with pytest.raises(ConfigError) as caught:
        deal(write(content))
    assert str(caught.value) == f"data.partition-file = 'p.json': {message}"


def test_a_client_whose_rows_are_all_validation_is_refused(write):
    with pytest.raises(ConfigError, match=r"leaves client 1 \(of 2\) without data"):
        deal(write({"clients": [[1, 2], [0]]}), rows=range(1, 10))


def test_a_missing_file_and_a_missing_key(write):
    with pytest.raises(ConfigError) as caught:
        deal("nowhere.json")
    assert (
        str(caught.value)
        == "data.partition-file = 'nowhere.json': cannot be read (No such file or directory)"
    )
    with pytest.raises(ConfigError) as caught:
        DataConfig.of(source="digits", partition="file")
    assert str(caught.value) == 'partition-file (DataConfig): is required by partition = "file"'


def test_a_byte_order_mark_is_no_content(write, tmp_path):
    path = write({"clients": [[4, 0], [1]]})
    (tmp_path / path).write_bytes(b"\xef\xbb\xbf" + (tmp_path / path).read_bytes())
    assert [rows.tolist() for rows in deal(path)] == [[0, 4], [1]]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("~nosuchuser/p.json", "there is no home folder for ~nosuchuser;"),
        (".", "cannot be read (Is a directory)"),
        ("p\0.json", "must be a path, which holds no NUL"),
    ],
)
def test_a_path_that_is_none_is_one_line(write, path, message):
    with pytest.raises(UserError) as caught:
        deal(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)
