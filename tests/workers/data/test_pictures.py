import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from workers.base import ImagePreprocessing
from workers.data.limits import Limits
from workers.data.pictures import UnreadablePicture, decode, fit, in_parallel, is_grey
from workers.errors import DatasetRefused


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), mode=None)


def encode(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def geometry(height: int, width: int, channels: int = 3, resize: int | None = None) -> ImagePreprocessing:
    return ImagePreprocessing(
        channels=channels,
        height=height,
        width=width,
        resize=resize,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )


@pytest.mark.parametrize("size", [(640, 480), (200, 500), (300, 300), (256, 256), (97, 31)])
def test_shorter_side_and_centre_crop_are_torchvisions(size: tuple[int, int]) -> None:
    image = picture(*size)
    reference = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.PILToTensor()]
    )
    assert np.array_equal(fit(image, geometry(224, 224, resize=256), Limits()), reference(image).numpy())


def test_without_resize_the_picture_is_stretched() -> None:
    image = picture(50, 40)
    expected = np.asarray(image.resize((12, 20), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.array_equal(fit(image, geometry(20, 12), Limits()), expected)


@pytest.mark.parametrize("resize", [None, 20])
def test_a_picture_of_the_right_size_keeps_every_pixel(resize: int | None) -> None:
    image = picture(20, 20)
    pixels = fit(image, geometry(20, 20, resize=resize), Limits())
    assert np.array_equal(pixels, np.asarray(image).transpose(2, 0, 1))


def test_grey_and_colour_follow_the_model() -> None:
    grey, colour = picture(8, 8, "L"), picture(8, 8)
    assert np.array_equal(fit(grey, geometry(8, 8), Limits()), np.stack([np.asarray(grey)] * 3))
    assert np.array_equal(
        fit(colour, geometry(8, 8, channels=1), Limits())[0], np.asarray(colour.convert("L"))
    )


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_a_photo_is_turned_upright(orientation: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = picture(7, 4)
    upright = decode(encode(image, exif=exif), "x.png", Limits())
    assert np.array_equal(np.asarray(upright), np.rot90(np.asarray(image), turns))


def test_sixteen_bits_become_the_upper_eight() -> None:
    values = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
    decoded = decode(encode(Image.fromarray(values)), "x.png", Limits())
    assert np.asarray(decoded).tolist() == [[0, 0, 1, 255]]


def test_transparency_is_dropped_as_imagefolder_does() -> None:
    image = picture(5, 5, "RGBA")
    decoded = decode(encode(image), "x.png", Limits())
    assert np.array_equal(np.asarray(decoded), np.asarray(image)[..., :3])


def test_palettes_one_bit_grey_alpha_and_print_colours_are_read() -> None:
    colour = picture(6, 6)
    palette = colour.quantize(8)
    decoded = decode(encode(palette, transparency=b"\0\x80"), "x", Limits())
    assert np.array_equal(np.asarray(decoded), np.asarray(palette.convert("RGB")))
    assert decode(encode(colour.convert("1")), "x", Limits()).mode == "L"
    assert decode(encode(colour.convert("LA")), "x", Limits()).mode == "L"
    assert decode(encode(colour.convert("CMYK"), "JPEG"), "x", Limits()).mode == "RGB"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM"])
def test_a_picture_cut_short_is_unreadable(form: str) -> None:
    data = encode(picture(64, 64), form)
    decode(data, "x", Limits())
    with pytest.raises(UnreadablePicture):
        decode(data[: len(data) // 2], "x", Limits())


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM"])
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_picture_is_decoded_or_unreadable_or_refused(
    form: str, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(encode(picture(16, 16), form))
    for place, value in changes:
        data[place % len(data)] = value
    with contextlib.suppress(UnreadablePicture, DatasetRefused):
        assert decode(bytes(data), "x", Limits(pixels=10_000)).mode in ("L", "RGB")


def test_formats_that_start_programs_or_loop_in_python_are_no_pictures() -> None:
    for data in (encode(picture(8, 8), "EPS"), encode(picture(8, 8), "PDF"), b"P3 1 1 255 1 2 3", b"", b"MZ"):
        with pytest.raises(UnreadablePicture):
            decode(data, "x", Limits())


def test_float_pixels_have_no_range() -> None:
    with pytest.raises(UnreadablePicture, match="range"):
        decode(encode(Image.fromarray(np.ones((3, 3), dtype=np.float32)), "TIFF"), "x", Limits())


def test_a_pixel_bomb_is_refused_by_its_header() -> None:
    bomb = encode(Image.new("1", (30_000, 30_000)))
    assert len(bomb) < 200_000
    with pytest.raises(DatasetRefused, match=r"x\.png"):
        decode(bomb, "x.png", Limits())
    with pytest.raises(DatasetRefused, match="9 × 9 pixels, and decoding visits 81; 80 are allowed"):
        decode(encode(picture(9, 9)), "x.png", Limits(pixels=80))


def test_a_jpeg_of_many_scans_is_refused() -> None:
    """Each scan of some 50 bytes makes the decoder visit the whole picture again."""
    data = encode(Image.new("L", (2000, 2000)), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    scan = data[start:-2]
    decode(data, "x.jpg", Limits())
    with pytest.raises(DatasetRefused, match="2,000 × 2,000 pixels, and decoding visits 1,004,000,000;"):
        decode(data[:start] + scan * 4000 + data[-2:], "x.jpg", Limits())


def test_a_thin_line_does_not_grow_without_bound() -> None:
    with pytest.raises(DatasetRefused, match="60,000 × 1 pixels becomes 3,932,160,000"):
        fit(Image.new("L", (60_000, 1)), geometry(224, 224, resize=256), Limits())


def test_colour_is_judged_by_pixels_and_not_by_the_file_form() -> None:
    assert is_grey(picture(4, 4, "L"))
    assert is_grey(picture(4, 4, "L").convert("RGB"))
    assert not is_grey(picture(4, 4))


def test_work_in_parallel_keeps_its_order_and_passes_errors_on() -> None:
    assert [one for part in in_parallel(lambda index: index, 5000) for one in part] == list(range(5000))
    assert list(in_parallel(lambda index: index, 0)) == []
    with pytest.raises(ZeroDivisionError):
        list(in_parallel(lambda index: 1 // (index - 3000), 5000))
