"""Files and folders appear whole, in place of what was there."""

import errno
import os
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import frugal.files
from frugal.files import appearing, load_tensors, put_back, save_tensors, write_text


def save(folder: Path, content: str) -> None:
    """A folder of two files, which belong together."""
    with appearing(folder) as temporary:
        temporary.mkdir()
        for name in ("one", "two"):
            (temporary / name).write_text(content)


def content_of(folder: Path) -> set[str]:
    return {file.read_text() for file in folder.iterdir()}


@pytest.mark.skipif(os.name == "nt", reason="needs a system that exchanges folders")
def test_a_reader_of_a_folder_that_is_replaced_finds_it_at_every_moment(tmp_path: Path) -> None:
    def replace() -> None:
        for number in range(300):
            save(tmp_path / "model", str(number))

    save(tmp_path / "model", "first")
    writer = threading.Thread(target=replace)
    writer.start()
    missing = 0
    while writer.is_alive():
        missing += not (tmp_path / "model").is_dir()
    writer.join()
    assert missing == 0
    assert content_of(tmp_path / "model") == {"299"}
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("next_use", ["read", "saved"])
def test_where_folders_cannot_be_exchanged_one_killed_halfway_is_found_again(
    next_use: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "model", "old")
    monkeypatch.setattr(frugal.files, "_exchanged", lambda *_: False)
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(os, "replace", lambda *_: os._exit(9))
        save(tmp_path / "model", "new")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not (tmp_path / "model").exists()
    if next_use == "read":
        put_back(tmp_path / "model")
        assert content_of(tmp_path / "model") == {"old"}
    save(tmp_path / "model", "new")
    assert content_of(tmp_path / "model") == {"new"}


def test_what_killed_writers_left_goes_after_a_day_and_nothing_else(tmp_path: Path) -> None:
    save(tmp_path / "model", "old")
    killed = {"abcd1234": "model", "efgh5678": "replaced"}
    others = {"settings": "mine", "new_0000": "model", "kept.abcd1234": "kept"}
    for end, content in {**killed, **others}.items():
        file = tmp_path / f".model.{end}" / content / "one"
        file.parent.mkdir(parents=True)
        file.touch()
        for path in (file.parents[1], file.parent, file)[: 2 if end == "new_0000" else 3]:
            os.utime(path, (0, 0))
    save(tmp_path / "model", "new")
    assert {path.name for path in tmp_path.iterdir()} == {"model", *(f".model.{end}" for end in others)}


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["write_text", "replace"])
def test_an_error_leaves_what_was_there_and_nothing_beside_it(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "model", "old")
    with monkeypatch.context() as patch:
        patch.setattr(frugal.files, "_exchanged", lambda *_: False)
        patch.setattr(os if step == "replace" else Path, step, full)
        with pytest.raises(OSError, match="No space left"):
            save(tmp_path / "model", "new")
    assert content_of(tmp_path / "model") == {"old"}
    assert os.listdir(tmp_path) == ["model"]


def test_a_file_takes_a_file_s_place(tmp_path: Path) -> None:
    for content in ("old", "new"):
        write_text(tmp_path / "notes.md", content)
        assert (tmp_path / "notes.md").read_text() == content


TENSORS = {
    "numbers": torch.linspace(-1, 1, 40).view(4, 10).T,
    "half": torch.ones(3, dtype=torch.bfloat16),
    "tokens": torch.arange(5),
    "flags": torch.tensor([True, False]),
    "one": torch.tensor(2.5, dtype=torch.float64),
    "none": torch.empty(0, 3),
}


def test_tensors_come_back_and_one_changed_byte_of_any_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "tensors.safetensors"
    save_tensors(TENSORS, path)
    found = load_tensors(path)
    assert found.keys() == TENSORS.keys()
    assert all(
        torch.equal(found[name], values) and found[name].dtype == values.dtype for name, values in TENSORS.items()
    )
    whole = path.read_bytes()
    numbers = sum(values.numel() * values.element_size() for values in TENSORS.values())
    for place in range(len(whole) - numbers, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"tensors.safetensors is not as it was written"):
            load_tensors(path)


def test_tensors_that_another_program_wrote_are_read_without_a_checksum(tmp_path: Path) -> None:
    save_file({"tokens": TENSORS["tokens"]}, tmp_path / "tensors")
    assert torch.equal(load_tensors(tmp_path / "tensors")["tokens"], TENSORS["tokens"])
