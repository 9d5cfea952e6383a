"""A party's file holds that party's data, to the bit, and nothing of anybody else's."""

import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save
from typer.testing import CliRunner

from fedunlearn import config, workspace
from fedunlearn.cli.main import app
from fedunlearn.data.export import DataPart, export, read_part, write_part
from fedunlearn.data.pixels import Pixels
from fedunlearn.errors import ConfigError
from tests.clients import sites

DIGITS = """
name = "digits"
targets = [[0]]
data = { source = "digits", partition = "dirichlet", alpha = 0.5, validation = 0.2 }
federation.num-clients = 3
model = { name = "mlp", hidden = [8] }
train = { rounds = 1, lr = 0.1 }
method = [{ name = "natural" }]
recover.until = "max-rounds"
engine.device = "cpu"
"""
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def experiment():
    return config.loads(DIGITS)


@pytest.fixture(scope="module")
def data(experiment):
    return workspace.data_of(experiment, 1)


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported")
    export(data, out)
    return out


def read(path, task="classification", dtype=torch.float32):
    return read_part(path, task=task, dtype=dtype)


def test_every_client_gets_its_own_data_and_the_server_the_validation_split(folder, data):
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.safetensors")) == [
        "client-0/data.safetensors",
        "client-1/data.safetensors",
        "client-2/data.safetensors",
        "server/validation.safetensors",
    ]
    for client in range(3):
        part = read(folder / f"client-{client}" / "data.safetensors")
        images, labels = data.client(client)
        assert part.images.equal(images) and part.labels.equal(labels)
        assert (part.client, part.task, part.class_names) == (client, "classification", data.class_names)
    part = read(folder / "server" / "validation.safetensors")
    assert part.images.equal(data.validation_images) and part.labels.equal(data.validation_labels)
    assert part.client is None


def test_the_scale_of_pixels_goes_along_and_files_from_before_it_did_are_read(folder, data, tmp_path):
    part = read(folder / "client-1" / "data.safetensors")
    assert part.pixels == data.pixels and part.of_client(3, CPU).pixel_std == data.pixel_std != (1.0,)
    path = folder / "client-1" / "data.safetensors"
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    header = json.loads(path.read_bytes()[8 : 8 + length])
    about = json.loads(header["__metadata__"]["fedunlearn"])
    assert about.pop("std") == list(data.pixel_std) and len(about.pop("mean")) == data.in_channels
    header["__metadata__"]["fedunlearn"] = json.dumps(about)
    older = json.dumps(header).encode()
    (tmp_path / "older").write_bytes(struct.pack("<Q", len(older)) + older + path.read_bytes()[8 + length :])
    assert read(tmp_path / "older").of_client(3, CPU).pixel_std == (1.0,)


def test_a_file_is_no_larger_than_what_it_holds(folder, data):
    """A client's rows are a view of all rows: what is written must not be."""
    for client in range(3):
        path = folder / f"client-{client}" / "data.safetensors"
        held = sum(tensor.nbytes for tensor in data.client(client))
        assert held <= path.stat().st_size <= held + 1000


def test_only_the_owner_may_read_them(folder):
    assert {p.stat().st_mode & 0o777 for p in folder.rglob("*.safetensors")} == {0o600}


def test_a_node_sees_its_own_rows_and_nobody_elses(folder, data):
    seen = read(folder / "client-1" / "data.safetensors").of_client(3, CPU)
    for found, own in zip(seen.client(1), data.client(1), strict=True):
        assert found.equal(own)
    assert [len(seen.client(k)[1]) for k in range(3)] == [0, len(data.client(1)[1]), 0]
    assert len(seen.validation_labels) == len(seen.test_labels) == 0
    shapes = [(d.num_classes, d.in_channels, d.image_size) for d in (seen, data)]
    assert shapes[0] == shapes[1]


def test_the_server_sees_what_it_validates_on_and_no_client(folder, data):
    seen = read(folder / "server" / "validation.safetensors").of_server(3, CPU)
    assert seen.validation_images.equal(data.validation_images)
    assert [len(seen.client(k)[1]) for k in range(3)] == [0, 0, 0]


def test_masks_travel_too(tmp_path):
    data = sites.data()
    export(data, tmp_path)
    part = read(tmp_path / "client-0" / "data.safetensors", task="segmentation")
    images, masks = data.client(0)
    assert part.images.equal(images) and part.labels.equal(masks)
    assert part.of_client(len(data.clients), CPU).task == "segmentation"


# -- what is refused ---------------------------------------------------------------------------------------


def test_nothing_is_written_among_other_files(data, tmp_path):
    (tmp_path / "client-9").mkdir()
    with pytest.raises(ConfigError, match=r"is not empty; name a new folder"):
        export(data, tmp_path)


def part(**changed):
    fields = {"images": torch.zeros(2, 1, 4, 4), "labels": torch.tensor([0, 1]), "task": "classification"}
    return DataPart(**({**fields, "class_names": ("a", "b"), "client": 0} | changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pixels": Pixels((0.0,), (0.0,))}, r"std = \[0\.0\]; must be a number above 0 for each channel"),
        (
            {"pixels": Pixels((0.0,), (float("inf"),))},
            r"fedunlearn: cannot be read as JSON \(Infinity is not a number\)\); export it again",
        ),
        ({"pixels": Pixels((float("nan"),), (0.2,))}, r"cannot be read as JSON \(NaN is not a"),
        ({"pixels": Pixels((0.0, 0.0), (0.2,))}, r"mean = \[0\.0, 0\.0\]; must be a number for each"),
        (
            {"pixels": Pixels((0.5,), (0.2,)), "images": torch.full((2, 1, 4, 4), 255.0)},
            r"its pixels, with mean and std undone, are 51\.5 to 51\.5 and must be 0 to 1; were the images "
            r"normalised\?",
        ),
        (
            {"pixels": Pixels((0.0,), (0.2,)), "images": torch.full((2, 1, 4, 4), -1.0)},
            r"are -0\.2 to",
        ),
        (
            {"images": torch.zeros(0, 1, 4, 4), "labels": torch.zeros(0).long()},
            r"holds no image; a client without data can neither train nor be forgotten",
        ),
        ({"class_names": ("a", "b", "a")}, r"names a class twice: a, b, a"),
        ({"pixels": Pixels((0.0,), (0.2, 0.2))}, r"std = \[0\.2, 0\.2\]; must be a number above 0"),
        ({"task": "segmentation"}, r"holds data for segmentation; the experiment's data are for classif"),
        (
            {"images": torch.zeros(2, 1, 4, 4, dtype=torch.float64)},
            r"images are torch\.float64; .* torch\.float32",
        ),
        ({"images": torch.zeros(2, 4, 4)}, r"images \(2, 4, 4\), labels \(2,\); must be \(n, channels"),
        ({"images": torch.zeros(3, 1, 4, 4)}, r"images \(3, 1, 4, 4\), labels \(2,\); must be"),
        (
            {"labels": torch.tensor([0, 1], dtype=torch.int32)},
            r"labels are torch\.int32; must be torch\.int64",
        ),
        ({"labels": torch.tensor([0, 2])}, r"a label is not one of the 2 classes"),
        ({"labels": torch.tensor([0, -1])}, r"a label is not one of the 2 classes"),
        ({"images": torch.full((2, 1, 4, 4), float("nan"))}, r"NaN or infinite numbers"),
    ],
)
def test_data_that_no_experiment_could_train_on_are_refused_by_name(changed, message, tmp_path):
    path = tmp_path / "data.safetensors"
    write_part(path, part())
    assert read(path).num_classes == 2, "or all of them would be refused"
    write_part(path, part(**changed))
    with pytest.raises(ConfigError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


TENSORS = {"images": torch.zeros(2, 1, 4, 4), "labels": torch.tensor([0, 1])}
ABOUT = {"task": "classification", "class-names": ["a", "b"], "client": 0, "shape": [2, 1, 4, 4]}


def test_the_file_that_the_following_ones_are_made_of_is_read(tmp_path):
    path = tmp_path / "data.safetensors"
    path.write_bytes(save(TENSORS, metadata={"fedunlearn": json.dumps(ABOUT)}))
    assert read(path).client == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no safetensors",
        save({"images": torch.zeros(1)}),
        save({"images": torch.zeros(1)}, metadata={"fedunlearn": "{}"}),
        save({"images": torch.zeros(1)}, metadata={"fedunlearn": json.dumps([1])}),
        save({"images": torch.zeros(1)}, metadata={"fedunlearn": "[" * 100_000}),
        save(TENSORS, metadata={"fedunlearn": json.dumps({**ABOUT, "client": -1})}),
        save(TENSORS, metadata={"fedunlearn": json.dumps({**ABOUT, "client": True})}),
        save(TENSORS, metadata={"fedunlearn": json.dumps({**ABOUT, "client": 1.5})}),
        save(TENSORS, metadata={"fedunlearn": json.dumps(ABOUT)[:-1] + ', "client": 1}'}),
    ],
)
def test_a_file_of_something_else_is_refused(content, tmp_path):
    path = tmp_path / "data.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        ConfigError, match=r"is not a file of `fedunlearn data export` \(.*\); export it again"
    ):
        read(path)


def test_a_file_that_is_not_there_says_how_to_get_it(tmp_path):
    with pytest.raises(ConfigError, match=r"no such file or directory\); files of `fedunlearn data export`"):
        read(tmp_path / "data.safetensors")


# -- the command -------------------------------------------------------------------------------------------


def test_the_command_writes_the_first_seed_and_says_what(tmp_path):
    file = tmp_path / "digits.toml"
    file.write_text(DIGITS.replace("targets", "seeds = [7, 8]\ntargets"))
    result = CliRunner().invoke(
        app, ["data", "export", str(file), "--out", str(tmp_path / "out"), "--set", "data.alpha=1.0"]
    )
    assert result.exit_code == 0, result.output
    written = result.output.split()
    assert written[0].endswith("client-0/data.safetensors") and len(written) == 4
    wanted = workspace.data_of(config.load(file, overrides=["data.alpha=1.0"]), 7).client(0)
    assert load_file(written[0])["images"].equal(wanted[0])
