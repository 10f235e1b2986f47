"""The photographs of benchmark_photographs."""

import pytest
from PIL import Image

from experiments import benchmark_photographs
from lts.utils.errors import UserError


def test_photographs_are_as_many_as_the_rates_count(tmp_path, monkeypatch):
    """Fails if rates count photographs that were not made, or a broken image is not named."""
    monkeypatch.setattr(benchmark_photographs, "HEIGHT", 6)
    monkeypatch.setattr(benchmark_photographs, "WIDTH", 8)
    images = tmp_path / "images"
    made = tmp_path / "made"
    images.mkdir()
    made.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("L", (3, 2), 200).save(images / name)
    benchmark_photographs.make_photographs(images, made, 2)
    assert [Image.open(path).size for path in made.iterdir()] == [(8, 6), (8, 6)]
    with pytest.raises(UserError, match=r"there are 2 images in \S+ Received: photographs=3"):
        benchmark_photographs.make_photographs(images, made, 3)
    (images / "a.png").write_bytes((images / "b.png").read_bytes()[:40])
    with pytest.raises(UserError, match=r"a\.png is broken"):
        benchmark_photographs.make_photographs(images, made, 2)
