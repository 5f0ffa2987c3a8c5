"""Transformers' own common model and configuration tests, run on `ESIModel` and `ESIEcgModel`.

Every test skipped here is skipped by transformers' own CLIP tests too (tests/models/clip/test_modeling_clip.py): the
joint model's are those of `CLIPModelTest`, the encoder's those of `CLIPVisionModelTest`.
"""

import unittest

import pytest
import torch
import transformers_suite
from transformers import BertConfig

from modeling_esi import ESIConfig, ESIDecoderConfig, ESIEcgConfig, ESIEcgModel, ESIModel

pytestmark = pytest.mark.slow
try:
    common = transformers_suite.load("test_modeling_common")
    ConfigTester = transformers_suite.load("test_configuration_common").ConfigTester
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)


class EcgModelTester:
    """A small ECG encoder and a batch for it."""

    batch_size, num_leads, num_samples = 3, 12, 256
    hidden_sizes = [8, 16, 24, 36]
    is_training = False  # the encoder alone has no loss
    num_hidden_layers = 2
    expected_num_hidden_layers = 4  # hidden_states are the four stages' outputs
    seq_length, hidden_size = num_samples // 4, hidden_sizes[0]

    def __init__(self, parent):
        self.parent = parent

    def get_config(self):
        return ESIEcgConfig(depths=[1, 1, 2, 1], hidden_sizes=self.hidden_sizes)

    def prepare_config_and_inputs_for_common(self):
        values = common.floats_tensor([self.batch_size, self.num_leads, self.num_samples])
        return self.get_config(), {"input_values": values}


class ESIModelTester:
    """A small ESI and a batch of pairs for it."""

    batch_size, seq_length, is_training = 3, 7, True

    def __init__(self, parent):
        self.parent = parent
        self.ecg = EcgModelTester(parent)

    def get_config(self):
        text = BertConfig(
            vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37,
            max_position_embeddings=64,
        )  # fmt: skip
        decoder = ESIDecoderConfig(
            hidden_size=24, num_hidden_layers=2, num_attention_heads=3, head_dim=8, intermediate_size=37
        )
        return ESIConfig(ecg_config=self.ecg.get_config(), text_config=text, decoder_config=decoder, projection_dim=20)

    def prepare_config_and_inputs_for_common(self):
        _, inputs = self.ecg.prepare_config_and_inputs_for_common()
        inputs["input_ids"] = common.ids_tensor([self.batch_size, self.seq_length], 98) + 1
        inputs["attention_mask"] = torch.ones(self.batch_size, self.seq_length, dtype=torch.long)
        inputs["return_loss"] = True
        return self.get_config(), inputs


class ESIEcgModelTest(common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (ESIEcgModel,)
    test_resize_embeddings = False
    has_attentions = False

    def setUp(self):
        self.model_tester = EcgModelTester(self)
        self.config_tester = ConfigTester(
            self, config_class=ESIEcgConfig, has_text_modality=False, common_properties=["hidden_size", "hidden_sizes"],
            hidden_sizes=[8, 16, 24, 37],
        )  # fmt: skip

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_model_get_set_embeddings(self):
        """The encoder has no token table: its input embeddings are its stem (as CLIPVisionModelTest)."""
        model = ESIEcgModel(self.model_tester.get_config())
        self.assertIsInstance(model.get_input_embeddings(), torch.nn.Conv1d)
        self.assertIsNone(model.get_output_embeddings())

    @unittest.skip(reason="The encoder has no inputs_embeds (as CLIPVisionModelTest)")
    def test_inputs_embeds(self):
        pass


class ESIModelTest(common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (ESIModel,)
    test_resize_embeddings = False
    test_attention_outputs = False
    additional_model_inputs = ["input_ids"]
    _is_composite = True

    def setUp(self):
        self.model_tester = ESIModelTester(self)
        self.config_tester = ConfigTester(
            self, config_class=ESIConfig, has_text_modality=False,
            common_properties=["projection_dim", "logit_scale_init_value"],
        )  # fmt: skip

    def test_config(self):
        self.config_tester.run_common_tests()

    @unittest.skip(reason="Hidden states are tested on the encoder (as CLIPModelTest)")
    def test_hidden_states_output(self):
        pass

    @unittest.skip(reason="The joint model has no inputs_embeds (as CLIPModelTest)")
    def test_inputs_embeds(self):
        pass

    @unittest.skip(reason="Retained gradients are tested on the encoder (as CLIPModelTest)")
    def test_retain_grad_hidden_states_attentions(self):
        pass

    def test_sdpa_can_dispatch_composite_models(self):
        """Overridden as transformers asks of towers with other names: the choice reaches text encoder and decoder."""
        config = self.model_tester.get_config()
        for implementation in ("sdpa", "eager"):
            model = ESIModel._from_config(config, attn_implementation=implementation)
            for part in (model, model.text_model, model.decoder):
                self.assertEqual(part.config._attn_implementation, implementation)

    def check_text_features(self):
        """Overridden: here `get_text_features` gives the normalised `(B, P)` tensor, whatever `return_dict` says."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        for return_dict in (True, False, None):
            config.return_dict = return_dict
            model = ESIModel(config).eval()
            features = model.get_text_features(inputs["input_ids"], inputs["attention_mask"])
            self.assertEqual(features.shape, (self.model_tester.batch_size, config.projection_dim))
            torch.testing.assert_close(features.norm(dim=-1), torch.ones(self.model_tester.batch_size))

    test_get_text_features_output_0 = check_text_features
    test_get_text_features_output_1 = check_text_features
    test_get_text_features_output_2 = check_text_features
    test_get_text_features_hidden_states = check_text_features
    test_get_text_features_attentions = check_text_features
