"""Text encoders of any architecture, without what no loss would train."""

import pytest
from tiny_esi import TEXT
from transformers import AutoModel, BertConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from modeling_esi.text_model import build_text_model, holders_of, without_pooler

FIELDS = {name: value for name, value in TEXT.items() if name != "model_type"}


@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra"])
def test_no_pooler_is_built(model_type):
    model = build_text_model(CONFIG_MAPPING[model_type](**FIELDS))
    assert not any("pooler" in name for name, _ in model.named_parameters())


def test_a_loaded_encoder_loses_its_pooler():
    model = AutoModel.from_config(BertConfig(**FIELDS))
    assert any("pooler" in name for name, _ in model.named_parameters())
    assert not any("pooler" in name for name, _ in without_pooler(model).named_parameters())


@pytest.mark.parametrize(("model_type", "holder"), [("bert", "BertEmbeddings"), ("electra", "ElectraEmbeddings")])
def test_the_token_table_is_held_by_one_module(model_type, holder):
    model = build_text_model(CONFIG_MAPPING[model_type](**FIELDS))
    assert holders_of(model.get_input_embeddings(), model) == {holder}
