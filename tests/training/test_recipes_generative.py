"""Encodings that fit nothing: bytes and tokenizers for language models, catalogues, words in order; and how good is good."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import DataError, PolicyError
from privacy.policy import Recipe
from tests.training.lm_folder import make_lm_folder
from training.config import TrainingConfig
from training.data import IGNORED, Record, UnitData, words
from training.recipes import recipe_of
from training.recipes.recommendation import hit_rate, item_features
from training.text_codec import ByteCodec, codec_of

LABELS = ("refund", "late_parcel", "hi")
CATALOGUE = {"refund": "crime by night", "late_parcel": "crime by day", "hi": "garden herbs"}


def config_of(labels: tuple[str, ...] = LABELS, max_records: int = 3, **changes: object) -> TrainingConfig:
    small = {"hash_buckets": 64, "embedding_width": 8, "max_tokens": 12, "hidden_layers": 1, "heads": 2, **changes}
    return TrainingConfig(Recipe.model_validate(small), labels, max_records, 1.0, 0.1, 10, 2)


def record(text: str, label: str = "refund", number: int = 0, image: bytes | None = None) -> Record:
    return Record("u", f"r{number}", text, label, image)


@given(st.text(max_size=40))
def test_bytes_come_back_as_the_text_they_were(text: str) -> None:
    codec = ByteCodec(3, 1000)
    tokens = codec.encode(text)
    safe = text.encode("utf-8", "replace").decode()
    assert tokens[-1] == codec.end
    assert all(0 < token <= codec.end for token in tokens)
    assert codec.characters([*tokens, 0, 0]) == len(safe) + 1
    if "<" not in text:
        assert codec.decode([*tokens, 0]) == safe


def test_a_pseudonym_never_reaches_a_language_model() -> None:
    codec = ByteCodec(3, 1000)
    said = codec.decode(codec.encode("ask <PERSON_3fa9c1> or <CARD:*1234> about <b_unclear>"))
    assert said == "ask <PERSON> or <CARD:*1234> about <b_unclear>"


def test_a_long_text_is_cut_and_has_no_end() -> None:
    codec = ByteCodec(3, 5)
    assert codec.encode("abcdefgh") == [98, 99, 100, 101, 102]
    assert codec.encode("abcd")[-1] == codec.end


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_tokenizer_of_a_folder_encodes_ends_and_steers(kind: str, tmp_path: Path) -> None:
    folder = make_lm_folder(tmp_path / kind, kind)
    config = config_of(model="causal_lm", trains="lora", rank=2, pretrained=f"folder:{folder}", max_tokens=30)
    codec = codec_of(config)
    tokens = codec.encode("hello <PERSON_3fa9c1>")
    assert codec.decode(tokens) == "hello <PERSON>"
    assert tokens[-1] == codec.end == 2
    assert len({len(code) for code in codec.codes}) == 1
    assert len({tuple(code) for code in codec.codes}) == 3
    assert all(code[0] == 1 for code in codec.codes)  # <s>
    assert codec.decode(codec.codes[1]).lstrip("<s>").startswith("late parcel:\n")
    assert codec.silent == [1]
    model = recipe_of(config).build(config)
    assert set(model.silent.tolist()) == {0, 1, *range(codec.vocabulary, 265)}  # type: ignore[union-attr]
    assert codec.characters(tokens) == len("hello <PERSON>") + 1


def test_a_model_without_an_end_is_refused(tmp_path: Path) -> None:
    import json

    folder = make_lm_folder(tmp_path / "llama")
    settings = json.loads((folder / "config.json").read_text())
    settings["eos_token_id"] = None
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(PolicyError, match="E-PRETRAINED-006"):
        codec_of(config_of(model="causal_lm", trains="lora", rank=2, pretrained=f"folder:{folder}"))


def test_an_encoder_is_no_language_model(tmp_path: Path) -> None:
    import json

    folder = make_lm_folder(tmp_path / "llama")
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"model_type": "vit", "architectures": ["ViTModel"]}
    (folder / "config.json").write_text(json.dumps(settings))
    config = config_of(model="causal_lm", trains="full", pretrained=f"folder:{folder}")
    with pytest.raises(PolicyError, match="E-PRETRAINED-007"):
        recipe_of(config).build(config)


def test_a_language_model_sees_each_text_with_its_own_label() -> None:
    config = config_of(model="causal_lm")
    data = recipe_of(config).encode({"u": [record("ab"), record("c", "hi", 1)]}, config)
    assert data.labels.tolist() == [[0, 2, IGNORED]]
    assert data.inputs["tokens"][0, :, :4].tolist() == [[98, 99, 257, 0], [100, 257, 0, 0], [0, 0, 0, 0]]
    assert data.lengths.tolist() == [[3, 2, 0]]


def test_the_answers_of_a_language_model_are_its_own_words() -> None:
    config = config_of(model="causal_lm")
    recipe = recipe_of(config)
    found = recipe.respond(recipe.build(config), ["tell me a secret"] * 5, config)
    assert len(found) == 5
    assert not any("secret" in text for text in found)
    assert not recipe.classifies


def test_words_keep_their_order_for_a_recurrent_net() -> None:
    assert words("Refund me 12 times <PERSON_3fa9c1> 退款") == ["refund", "me", "#", "times", "<person>", "退", "款"]
    config = config_of(model="text_rnn")
    one, two = (recipe_of(config).encode({"u": [record(text)]}, config).inputs["tokens"][0, 0] for text in ("a b", "b a"))
    assert one[:2].tolist() == two[:2][::-1].tolist()
    assert one[2:].max() == 0


def test_a_record_without_a_picture_stops_the_training() -> None:
    config = config_of(model="image_cnn", image_size=(8, 9))
    recipe = recipe_of(config)
    data = recipe.encode({"u": [record("", image=bytes(range(72)))]}, config)
    assert data.inputs["pixels"][0, 0].tolist() == np.arange(72).reshape(8, 9).tolist()
    for image in (None, bytes(71)):
        with pytest.raises(DataError, match="E-IMAGE-001"):
            recipe.encode({"u": [record("", image=image)]}, config)


def test_item_features_are_public_and_tell_items_apart() -> None:
    found = item_features(list(CATALOGUE.values()), 32)
    assert np.array_equal(found, item_features(list(CATALOGUE.values()), 32))
    assert np.allclose(np.linalg.norm(found, axis=1), 1.0)
    assert found[0] @ found[1] > found[0] @ found[2]


def test_a_user_is_known_by_their_other_choices_and_words() -> None:
    config = config_of(model="two_tower", catalogue=CATALOGUE)
    data = recipe_of(config).encode({"u": [record("ab cd"), record("x", "hi", 1)]}, config)
    assert data.inputs["items"].tolist() == [[1, 3, 0]]
    assert (data.inputs["tokens"] != 0).sum(-1).tolist() == [[3, 1, 0]]


@given(st.integers(0, 2**32 - 1), st.integers(2, 30))
def test_the_hit_rate_is_that_of_a_naive_ranking(seed: int, items: int) -> None:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, items, (4, 3))
    labels[0, 2] = labels[3, 1:] = IGNORED
    data = UnitData(("a", "b", "c", "d"), {}, labels)
    asked = data.present & (data.present.sum(1, keepdims=True) > 1)
    scores = draw.normal(size=(4, 3, items))  # no ties
    seen = np.zeros((4, 3, items), dtype=np.bool_)
    hits = []
    for unit in range(4):
        for row in range(3):
            if asked[unit, row]:
                others = {int(x) for n, x in enumerate(labels[unit]) if n != row and x >= 0} - {int(labels[unit, row])}
                seen[unit, row, list(others)] = True
                order = [i for i in np.argsort(-scores[unit, row]) if i not in others]
                hits.append(int(labels[unit, row]) in order[:10])
    assert hit_rate(scores, data, seen, asked) == pytest.approx(np.mean(hits))


def test_a_ranking_of_nothing_hits_as_chance_does() -> None:
    labels = np.zeros((1, 2), dtype=np.int64)
    data = UnitData(("a",), {}, labels)
    nothing_seen = np.zeros((1, 2, 40), dtype=np.bool_)
    assert hit_rate(np.zeros(40), data, nothing_seen, data.present) == pytest.approx(0.25)


def test_utility_of_a_recommender_names_its_baselines() -> None:
    """Users of one record say nothing of a recommender that needs a history; a model that knows wins over popularity."""
    labels = tuple(f"i{n}" for n in range(24))
    catalogue = {name: f"{('crime', 'garden')[n % 2]} {'abcdefghijklmnopqrstuvwx'[n] * 3}" for n, name in enumerate(labels)}
    config = config_of(labels, 4, model="two_tower", catalogue=catalogue)
    recipe = recipe_of(config)
    draw = np.random.default_rng(0)
    grouped = {
        f"u{n}": [Record(f"u{n}", str(k), "", labels[n % 2 + 2 * draw.integers(12)]) for k in range(4)] for n in range(40)
    }
    data, model = recipe.encode(grouped, config), recipe.build(config)
    before = recipe.utility(model, data, config)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    inputs = {name: torch.from_numpy(array) for name, array in data.inputs.items()}
    for _ in range(40):
        optimizer.zero_grad()
        model.losses(inputs, torch.from_numpy(data.labels)).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = recipe.utility(model, data, config)
    assert before is not None
    assert after is not None
    assert after.accuracy == after.more["hit_rate_at_10"] > max(before.accuracy, after.more["hit_rate_at_10_of_chance"])
    assert after.accuracy > after.more["hit_rate_at_10_of_private_popularity"]
    assert after.majority == after.more["hit_rate_at_10_of_holdout_popularity"]
    alone = recipe.encode({"u": [Record("u", "0", "", labels[0])]}, config)
    assert recipe.utility(model, alone, config) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "two_tower"}, "catalogue"),
        ({"model": "text_mlp", "catalogue": CATALOGUE}, "catalogue"),
        ({"model": "text_rnn", "norm_groups": 4}, "norm_groups"),
        ({"model": "causal_lm", "embedding_width": 9}, "heads"),
    ],
)
def test_contradictions_of_these_recipes_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config_of(**changes)


def test_a_catalogue_has_a_text_for_each_label_and_no_other() -> None:
    from tests.worlds.policies import make_policy

    own = {"recipe.model": "two_tower", "recipe.catalogue": {"refund": "a", "delivery": "b"}}
    with pytest.raises(ValueError, match="each label"):
        make_policy(**own)
    with pytest.raises(ValueError, match="each label"):
        make_policy(**{**own, "recipe.catalogue": {"refund": "a", "delivery": "b", "greeting": "c", "more": "d"}})
    policy = make_policy(**{**own, "recipe.catalogue": {"refund": "a", "delivery": "b", "greeting": "c"}})
    assert policy.recipe.catalogue is not None
