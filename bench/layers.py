"""The layers that numconv is measured on against other libraries, by class. Shapes from the papers of the networks."""

from __future__ import annotations

from numconv.testing import RESNET50, Case


def _conv(name: str, ci: int, co: int, size: int, kernel: tuple[int, int], **options: object) -> Case:
    groups = options.get("groups", 1)
    assert isinstance(groups, int)
    return Case(name, (1, ci, size, size), (co, ci // groups, *kernel), options)


def _square(ci: int, co: int, size: int) -> Case:
    return _conv(f"3x3 {ci}->{co} at {size}", ci, co, size, (3, 3), padding=1)


def _depthwise(channels: int, size: int, kernel: int, stride: int = 1) -> Case:
    name = f"depthwise {kernel}x{kernel} {channels} at {size}" + (f" stride {stride}" if stride > 1 else "")
    options = {"padding": kernel // 2, "groups": channels, "stride": stride}
    return _conv(name, channels, channels, size, (kernel, kernel), **options)


def _filter(kernel: int, height: int, width: int) -> Case:
    return Case(f"filter {kernel}x{kernel} on {width}x{height}", (1, 1, height, width), (1, 1, kernel, kernel))


VGG16 = tuple(
    _square(ci, co, size)
    for ci, co, size in ((3, 64, 224), (64, 64, 224), (64, 128, 112), (128, 128, 112), (128, 256, 56), (256, 256, 56),
                         (256, 512, 28), (512, 512, 28), (512, 512, 14))
)  # fmt: skip

# Maps whose rows are no multiples of 7: of Stable Diffusion's U-Net, YOLO and AlexNet.
MAPS = tuple(
    _square(channels, channels, size)
    for channels, size in ((320, 64), (640, 32), (1280, 16), (1280, 8), (64, 80), (128, 40), (256, 20), (384, 13))
)

CLASSES: dict[str, tuple[Case, ...]] = {
    "3x3": tuple(case for case in RESNET50 if case.name.startswith("3x3")) + VGG16,
    "1x1": tuple(case for case in RESNET50 if case.name.startswith("1x1")),
    "maps": MAPS,
    "odd": (
        _conv("stem 7x7 stride 2 3->64 at 224", 3, 64, 224, (7, 7), stride=2, padding=3),
        _conv("stem 3x3 stride 2 3->32 at 224", 3, 32, 224, (3, 3), stride=2, padding=1),
        _conv("patches 4x4 stride 4 3->96 at 224", 3, 96, 224, (4, 4), stride=4),
        _conv("3x3 stride 2 128->128 at 56", 128, 128, 56, (3, 3), stride=2, padding=1),
        _conv("3x3 stride 2 256->256 at 28", 256, 256, 28, (3, 3), stride=2, padding=1),
        _conv("1x1 stride 2 256->512 at 56", 256, 512, 56, (1, 1), stride=2),
        _conv("3x3 dilation 2 256->256 at 28", 256, 256, 28, (3, 3), padding=2, dilation=2),
        _conv("3x3 groups 32 128->128 at 56", 128, 128, 56, (3, 3), padding=1, groups=32),
        _conv("5x5 48->64 at 28", 48, 64, 28, (5, 5), padding=2),
        _conv("31x31 8->8 at 64", 8, 8, 64, (31, 31), padding=15),
        _conv("1x7 128->128 at 17", 128, 128, 17, (1, 7), padding=(0, 3)),
        _conv("7x1 128->128 at 17", 128, 128, 17, (7, 1), padding=(3, 0)),
        _conv("3x3 37->29 at 30", 37, 29, 30, (3, 3), padding=1),
        _conv("3x3 64->3 at 128", 64, 3, 128, (3, 3), padding=1),
    ),
    "depthwise": (
        _depthwise(32, 112, 3), _depthwise(144, 56, 3), _depthwise(96, 112, 3, 2), _depthwise(384, 14, 3),
        _depthwise(240, 28, 5), _depthwise(672, 14, 5), _depthwise(96, 56, 7), _depthwise(384, 14, 7),
    ),
    "filters": (
        _filter(3, 1024, 1024), _filter(5, 1024, 1024), _filter(7, 1024, 1024), _filter(11, 1024, 1024),
        _filter(3, 2160, 3840), _filter(5, 2160, 3840), _filter(11, 2160, 3840),
    ),
}  # fmt: skip
