"""Which device and which number format are taken."""

import pytest
import torch

from frugal import device
from frugal.device import choose_device, choose_dtype
from frugal.errors import InputError, UnavailableError

PROCESSORS = {
    "matrix units": "processor\t: 0\nmodel name\t: Some Xeon\nflags\t\t: fpu avx512_bf16 amx_bf16\n\nprocessor\t: 1\n",
    "bfloat16 without matrix units": "model name\t: Some EPYC\nflags\t\t: fpu avx512f avx512_bf16\n",
    "ARM": "processor\t: 0\nFeatures\t: fp asimd bf16\n",
    "not Linux": None,
}


@pytest.fixture(params=PROCESSORS)
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    told = PROCESSORS[request.param]

    class Told:
        def __init__(self, _: str) -> None: ...

        def read_text(self, **_: str) -> str:
            if told is None:
                raise FileNotFoundError
            return told

    monkeypatch.setattr(device, "Path", Told)
    return str(request.param)


def test_bfloat16_is_taken_for_wide_models_where_the_processor_has_matrix_units(processor: str) -> None:
    cpu = torch.device("cpu")
    wide = torch.bfloat16 if processor == "matrix units" else torch.float32
    assert choose_dtype("auto", cpu, 576) == choose_dtype("auto", cpu, 256) == wide
    assert choose_dtype("auto", cpu, 128) == torch.float32


def test_the_processor_has_a_name_everywhere(processor: str) -> None:
    names = {"matrix units": "Some Xeon", "bfloat16 without matrix units": "Some EPYC"}
    assert device.processor()
    assert device.processor() == names.get(processor, device.processor())


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_format_that_is_asked_for_is_taken(name: str, processor: str) -> None:
    assert choose_dtype(name, torch.device("cpu"), 16) == getattr(torch, name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("present", "taken"), [({"cuda", "mps"}, "cuda"), ({"cuda"}, "cuda"), ({"mps"}, "mps"), (set(), "cpu")]
)
def test_auto_takes_cuda_then_mps_then_the_processor(
    present: set[str], taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in present)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in present)
    assert choose_device("auto").type == taken
    assert choose_device("cpu").type == "cpu"
    for name in {"cuda", "mps"} - present:
        with pytest.raises(UnavailableError, match=f"'{name}'"):
            choose_device(name)
    for name in present:
        assert choose_device(name).type == name


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="'tpu'"):
        choose_device("tpu")
    with pytest.raises(InputError, match="'float8'"):
        choose_dtype("float8", torch.device("cpu"), 16)  # type: ignore[arg-type]
