import os

import numpy as np
import pytest
import torch

from common import errors
from torch_impl import weight_files


class _Hostile:
    def __reduce__(self):
        return os.mkdir, ("made_by_the_pickle",)


def test_what_is_no_tensor_is_named_without_advice_to_read_it_all_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, zipped in enumerate((True, False)):
        path = tmp_path / f"{number}.pt"
        torch.save({"a": _Hostile()}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(errors.UserError, match=r"Received: .*\.pt: it names .*\.mkdir, which is no tensor$"):
            weight_files.read(path)
    assert not (tmp_path / "made_by_the_pickle").exists()


def test_a_file_cut_short_is_said_to_be(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(1000)}, path)
    for share in (0.3, 0.9):
        whole = path.read_bytes()
        (tmp_path / "cut.pt").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(errors.UserError, match="must be a whole file .* cut short, or damaged"):
            weight_files.read(tmp_path / "cut.pt")
    with pytest.raises(FileNotFoundError):
        weight_files.read(tmp_path / "none.pt")


def test_narrow_floats_become_float32_and_what_the_file_does_not_hold_stays_a_tensor(tmp_path):
    values = torch.tensor([0.5, -2.0])
    tree = {
        "half": values.half(),
        "bfloat16": values.bfloat16(),
        "float8": values.to(torch.float8_e4m3fn),
        "sparse": values.to_sparse(),
        "meta": values.to("meta"),
        "expanded": torch.ones(1).expand(1 << 40),  # 4 TiB, of which the file has 4 bytes.
    }
    torch.save(tree, tmp_path / "a.pt")
    found = weight_files.read(tmp_path / "a.pt")
    for name in ("half", "bfloat16", "float8"):
        np.testing.assert_array_equal(found[name], [0.5, -2])
    assert found["half"].dtype == np.float16 and found["bfloat16"].dtype == found["float8"].dtype == np.float32
    assert all(isinstance(found[name], torch.Tensor) for name in ("sparse", "meta", "expanded"))
