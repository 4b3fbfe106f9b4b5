"""Images of identities, from any representation, as files that hold their seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from flow_runs import as_trained, flow_config
from rendered_people import PEOPLE, write_people

from training.data.dataset import open_dataset
from training.evaluate.generate import (
    GeneratedImage,
    Generator,
    SourceFacts,
    is_generated,
    read_image,
    write_image,
)
from training.evaluate.people import Identity, held_out_people, read_identity
from training.evaluate.protocol import noise_seed
from training.model import build_model
from training.representations.base import Inputs
from training.sampling.sampler import Sampler


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    dataset = open_dataset(str(write_people(tmp_path_factory.mktemp("people") / "shards", PEOPLE[:2])), 1.0)
    found, _ = read_identity(dataset, held_out_people(dataset)[0])
    assert found is not None
    return found


def sampler(**representation: object) -> Sampler:
    torch.manual_seed(0)
    config = flow_config(None, None, representation={"size": "tiny", **representation})
    return Sampler(as_trained(build_model(config)))


def source(**sampling: float) -> SourceFacts:
    facts = {"name": "0-run", "path": "run", "step": 1, "representation": "omniid", "digest": "", "side": 64}
    defaults = {"steps": 2, "guidance": 3.5, "scale": 1.0, "identity_guidance": 1.0, "flow_digest": ""}
    return SourceFacts.model_validate(facts | defaults | sampling)


def test_images_are_those_of_omniid_sample_from_the_same_inputs_and_noise(identity: Identity) -> None:
    network = sampler()
    generator = Generator(network, source(scale=0.5))
    image = generator.image(generator.tokens(identity, (3, 1)), seed=-5)
    tokens = network.encode(list(identity.images_KSSC[[3, 1]]))
    (expected,) = network.generate(tokens, [-5], steps=2, scale=0.5)
    assert np.array_equal(image, expected)
    others = generator.image(generator.tokens(identity, (3,)), seed=-5)
    assert not np.array_equal(image, others)
    assert not np.array_equal(image, generator.image(generator.tokens(identity, (3, 1)), seed=6))


def test_a_representation_that_aligns_faces_gets_the_landmarks_of_the_dataset(identity: Identity) -> None:
    network = sampler(kind="arcface", recogniser="sface")
    tokens = Generator(network, source(steps=1)).tokens(identity, (0, 4))
    assert identity.keypoints_KP2.shape == (8, 5, 2)
    with torch.no_grad():
        expected = network.model.representation.encode(
            Inputs(
                torch.from_numpy(identity.images_KSSC[[0, 4]])[None],
                keypoints_BMK2=torch.from_numpy(identity.keypoints_KP2[[0, 4]])[None],
            )
        )
    assert torch.equal(tokens, expected)


def test_a_file_holds_its_seed_and_another_seed_is_not_taken_for_it(tmp_path: Path) -> None:
    place = GeneratedImage("0-run", "key_0", "person", 3, 5, 0)
    assert place.file == "images/0-run/key_0/inputs-3_target-5_sample-0.png"
    assert place.seed == noise_seed("person", 5, 0)
    assert not is_generated(tmp_path, place)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    write_image(tmp_path, place, pixels)
    assert is_generated(tmp_path, place)
    assert np.array_equal(read_image(tmp_path, place), pixels)
    assert not is_generated(tmp_path, GeneratedImage("0-run", "key_0", "somebody else", 3, 5, 0))
    (tmp_path / place.file).write_bytes(b"")
    assert not is_generated(tmp_path, place)
