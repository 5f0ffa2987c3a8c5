"""A pretrained text encoder from a folder, the cache or the Hub; where it cannot be had, that is said soon."""

import sys
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

TextEncoder = tuple[PreTrainedTokenizerBase, PreTrainedModel]
FETCH_TIMEOUT = 10  # seconds for a text encoder's first answer, so that a machine without network fails soon


def load_text_encoder(name: str) -> TextEncoder | None:
    """Tokenizer and weights from a folder, the cache or the Hub; `None` for "scratch"; a plain exit else, and soon."""
    if name == "scratch":
        return None
    try:
        try:
            return _load(name, local_files_only=True)
        except OSError:
            HfApi().model_info(name, timeout=FETCH_TIMEOUT)  # answers at once where there is no network
            return _load(name)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        sys.exit(
            f"--text_encoder {name}: cannot be loaded ({type(error).__name__}: {reason}).\n"
            f"On a machine with network: hf download {name} --local-dir {Path(name).name}\n"
            f"then copy that folder here and pass --text_encoder {Path(name).name}; or train one: "
            "--text_encoder scratch"
        )


def _load(name: str, **options: Any) -> TextEncoder:
    return AutoTokenizer.from_pretrained(name, **options), AutoModel.from_pretrained(name, **options)
