"""Dense embeddings: mean pooling that padding does not touch, of length 1; an encoder of a folder is found again."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from datasets_scripts.cqa.corpus import Passage
from datasets_scripts.cqa.dense import TextEncoder
from datasets_scripts.cqa.retriever import Retriever

TEXTS = ["p wave", "qrs is wide and notched in lead v6", "t", "st st st st"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", *dict.fromkeys(" ".join(TEXTS).split())]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=99, hidden_size=36, num_hidden_layers=2, num_attention_heads=3, intermediate_size=37,
        max_position_embeddings=41,
    )  # fmt: skip
    BertModel(config).save_pretrained(path)
    return path


def test_embeddings_are_the_mean_of_the_states_at_length_one(folder):
    encoder = TextEncoder(str(folder))
    model, tokens = BertModel.from_pretrained(folder).eval(), encoder._tokenizer(TEXTS[1], return_tensors="pt")
    with torch.no_grad():
        states = model(input_ids=tokens["input_ids"]).last_hidden_state[0].numpy()
    mean = states.mean(axis=0)
    assert encoder.encode([TEXTS[1]])[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


def test_neighbours_in_a_batch_and_its_size_do_not_matter(folder):
    together = TextEncoder(str(folder)).encode(TEXTS)
    alone = np.stack([TextEncoder(str(folder), batch_size=1).encode([text])[0] for text in TEXTS])
    assert together.shape == (4, 36) and together.dtype == np.float32
    assert together == pytest.approx(alone, abs=1e-5)
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(4), abs=1e-5)


def test_long_texts_are_cut_where_the_encoder_ends(folder):
    encoder = TextEncoder(str(folder))
    assert encoder.encode(["p " * 500])[0] == pytest.approx(encoder.encode(["p " * 41])[0], abs=1e-5)
    assert encoder.encode([]).shape == (0, 36)


def test_an_index_finds_its_encoder_again(folder, tmp_path):
    passages = [Passage(text, f"title {at}") for at, text in enumerate(TEXTS)]
    Retriever.build(passages, str(folder)).save(tmp_path / "index")
    hits = Retriever.load(tmp_path / "index").search("qrs wide notched lead v6", k=4)
    assert hits[0].passage.title == "title 1" and len(hits) > 1
    with pytest.raises(OSError):
        Retriever.load(tmp_path / "index", str(tmp_path / "nowhere")).search("p wave")
