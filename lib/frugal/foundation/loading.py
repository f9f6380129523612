"""From a model's name to a loaded model: packaged names, folders, GGUF files, adapters, Hugging Face hub ids."""

import difflib
import threading
from pathlib import Path

from huggingface_hub import constants, get_session, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from frugal.device import DType
from frugal.errors import InputError, UnavailableError
from frugal.files import data_folder
from frugal.foundation.adapters import adapted_model, is_adapter
from frugal.foundation.lock import only_one_makes
from frugal.foundation.model import Foundation
from frugal.foundation.reading import check_model_folder, first_line

PACKAGED = ("smollm2", "tiny-gpt2")
OFFLINE_CHOICES = "without a network there are 'smollm2' (if the package registry answers), 'tiny-gpt2' and folders"
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]  # nothing that would have to be unpickled
SECONDS_TO_ANSWER = 1.5


def load_foundation(
    name: str | Path, *, device: str = "cpu", dtype: DType = "auto", context_length: int | None = None
) -> Foundation:
    """Load a frozen pretrained causal language model.

    Args:
        name: "smollm2" (SmolLM2-135M-Instruct, fetched from the package registry once), "tiny-gpt2" (trained here
            from nothing in half a minute, once), a Hugging Face model folder, a GGUF file (or a folder with one and
            no safetensors), whose weights are expanded each time, the folder of a LoRA adapter, which is added to the
            model it names, or a hub id such as "gpt2", taken from the local cache or else downloaded. Only safetensors
            and GGUF weights are read, and no code is run that comes with them.
        device: "cpu", "cuda", "mps", or "auto" for the first of CUDA, MPS and the processor that there is.
        dtype: "float32", "bfloat16", or "auto" for what this machine's processor and the model's width suggest (see
            `choose_dtype`).
        context_length: tokens that the model takes at once, where fewer are wanted than it was trained for. Models
            that state no limit, such as BLOOM, Mamba and RWKV, take any number, by default 2048.

    Raises:
        InputError: there is no such model, or it is of a kind that cannot be used here.
        UnavailableError: the model is neither here nor can be fetched, or its files are damaged.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> from frugal.corpora import BytePairTokenizer
        >>> tokenizer = BytePairTokenizer.train(["a text"], vocabulary_size=260)
        >>> small = GPT2Config(vocab_size=260, n_positions=32, n_embd=12, n_layer=1, bos_token_id=0, eos_token_id=0)
        >>> Foundation(GPT2LMHeadModel(small), tokenizer, name="untrained").save(Path("my-gpt"), "# Untrained")
        >>> load_foundation("my-gpt", context_length=16).context_length
        16
    """
    name = str(name)
    place, adapter = _place_of(name), None
    if is_adapter(place):
        adapter, base = place, adapted_model(place)
        try:
            place = _place_of(base)
        except (InputError, UnavailableError) as error:
            raise type(error)(f"{adapter} is an adapter of {base!r}, which is not to be had: {error}") from error
    return Foundation.load(place, device=device, dtype=dtype, context_length=context_length, name=name, adapter=adapter)


def check_foundation(name: str | Path) -> None:
    """Raise what `load_foundation` would, as far as it is known before anything is fetched or read.

    >>> check_foundation("no such.gguf")
    Traceback (most recent call last):
    frugal.errors.InputError: model 'no such.gguf': there is no such file; check the path
    """
    if str(name) not in PACKAGED and _place_here(str(name)) is None:
        _check_hub(str(name))


def _place_of(name: str) -> Path:
    if name in PACKAGED:
        return _packaged_folder(name)
    return _place_here(name) or _downloaded_folder(name)


def _place_here(name: str) -> Path | None:
    """Where a model is that need not be fetched; None where the hub may have it."""
    place = Path(name).expanduser()
    if name and place.is_dir():  # Path("") would be the working directory
        return place
    if place.suffix == ".gguf":
        if not place.is_file():
            raise InputError(f"model {name!r}: there is no such file; check the path")
        return place
    near = difflib.get_close_matches(name.lower(), PACKAGED, n=1, cutoff=0.8)
    if near:
        raise InputError(f"model {name!r} does not exist: did you mean {near[0]!r}?")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(
            f"model {name!r}: is neither a folder nor a hub id; give {' or '.join(map(repr, PACKAGED))}, "
            "an existing folder, or an id like 'EleutherAI/pythia-70m'"
        ) from error
    return _cached_folder(name)


def _packaged_folder(name: str) -> Path:
    folder = data_folder() / "models" / name
    with only_one_makes(folder):
        if not folder.is_dir():
            # Imported here: training and unpacking need libraries that loading does not.
            if name == "smollm2":
                from frugal.foundation.smollm2 import make_smollm2 as make
            else:
                from frugal.foundation.tiny_gpt2 import make_tiny_gpt2 as make
            make(folder)
    return folder


def _cached_folder(name: str) -> Path | None:
    """The hub's local copy, if there is a whole one."""
    try:
        folder = Path(snapshot_download(name, allow_patterns=HUB_FILES, local_files_only=True))
        check_model_folder(folder)
    except (LocalEntryNotFoundError, InputError):
        return None
    return folder


def _check_hub(name: str) -> None:
    if not hub_answers():
        raise UnavailableError(
            f"model {name!r} is not in the local cache and the model hub does not answer: {OFFLINE_CHOICES}"
        )


def _downloaded_folder(name: str) -> Path:
    _check_hub(name)
    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES, ignore_patterns=["*/*"]))
    except RepositoryNotFoundError as error:
        raise InputError(f"model {name!r}: the hub has none of that name, or it is not public; check it") from error
    except (HfHubHTTPError, OSError) as error:
        raise UnavailableError(
            f"model {name!r} could not be downloaded ({first_line(error)}): run again to go on"
        ) from error


def hub_answers() -> bool:
    """Whether the model hub can be reached; known within two seconds, where its client would retry for a minute."""
    if constants.is_offline_mode():
        return False
    answered = threading.Event()

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=SECONDS_TO_ANSWER)
        except Exception:  # whatever hinders the request, there is no answer
            return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)  # name resolution takes no time limit, so it is left behind
    thread.start()
    thread.join(SECONDS_TO_ANSWER)
    return answered.is_set()
