"""A chat model of transformers, run in this process. Nothing else of this package needs torch or transformers."""

from __future__ import annotations

import os
import threading

from datasets_scripts.cqa.generator import CUT_SHORT, Generated, Message


class LocalGenerator:
    """A chat model of transformers on this machine: a folder, or a name that is fetched from the Hub once.

    One request is answered at a time. No code of the model's repository is run. Raises ImportError without
    transformers, OSError where there is no such model, ValueError for a tokenizer without a chat template.
    """

    where, is_remote = "this machine", False

    def __init__(self, model: str | os.PathLike[str], *, max_tokens: int = 400, device: str | None = None) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.name = str(model)
        self._max_tokens, self._lock = max_tokens, threading.Lock()
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        if not self._tokenizer.chat_template:
            raise ValueError(f"{model}: expected a chat model, got a tokenizer without a chat template")
        self._model = AutoModelForCausalLM.from_pretrained(model).eval()
        if device is not None:
            self._model.to(device)

    def generate(self, messages: list[Message]) -> Generated:
        """The most likely answer."""
        with self._lock:
            inputs = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            ).to(self._model.device)
            tokens = self._model.generate(**inputs, max_new_tokens=self._max_tokens, do_sample=False)
        num_asked = inputs["input_ids"].shape[1]
        said = tokens[0, num_asked:]
        ends = self._model.generation_config.eos_token_id
        ended = len(said) > 0 and int(said[-1]) in (ends if isinstance(ends, list) else [ends])
        text = self._tokenizer.decode(said, skip_special_tokens=True)
        return Generated(text, num_asked, len(said), "stop" if ended else CUT_SHORT)
