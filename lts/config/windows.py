"""Windows of convolutions and pools along one axis."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Window:
    """Window of a convolution or a pool.

    Attributes:
      kernel: cells that it covers.
      stride: cells between two windows.
      padding: "SAME", "VALID", or the numbers of zeros before the first and after the last cell.
    """

    kernel: int
    stride: int = 1
    padding: str | tuple[int, int] = "SAME"

    def __post_init__(self) -> None:
        if not isinstance(self.padding, str):
            object.__setattr__(self, "padding", tuple(self.padding))  # a list in JSON

    def cells(self, size: int) -> int:
        """Return the number of windows on `size` cells."""
        if self.padding == "SAME":
            return -(-size // self.stride)
        return max((size + self._zeros - self.kernel) // self.stride + 1, 0)

    def smallest(self, cells: int) -> int:
        """Return the smallest size that gives this number of windows."""
        covered = (cells - 1) * self.stride
        return covered + 1 if self.padding == "SAME" else max(covered + self.kernel - self._zeros, 1)

    @property
    def _zeros(self) -> int:
        return 0 if isinstance(self.padding, str) else sum(self.padding)


def alexnet_windows(config) -> dict[str, tuple[Window, ...]]:
    """Return the windows from the image to each layer of AlexNet.

    A 3x3 pool of stride 2 follows conv_1 and conv_2 (release).

    Args:
      config: the `DiscriminatorConfig`.
    """
    pool = Window(3, 2, config.disc_padding)
    conv_1 = (Window(config.conv_1_kernel, config.conv_1_stride, config.disc_padding),)
    conv_2 = (*conv_1, pool, Window(5))
    conv_3 = (*conv_2, pool, Window(3))
    conv_4 = (*conv_3, Window(3))
    conv_5 = (*conv_4, Window(3))
    return {"conv_1": conv_1, "conv_2": conv_2, "conv_3": conv_3, "conv_4": conv_4, "conv_5": conv_5}
