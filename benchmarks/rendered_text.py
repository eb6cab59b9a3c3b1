"""Lines of text and captchas as pictures, drawn with the fonts that matplotlib and Pillow ship."""

from __future__ import annotations

import re
import string
from pathlib import Path
from pydoc_data.topics import topics

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

FONTS = (
    "DejaVuSans DejaVuSans-Bold DejaVuSans-Oblique DejaVuSerif DejaVuSerif-Bold DejaVuSerif-Italic"
    " DejaVuSansMono DejaVuSansMono-Bold STIXGeneral STIXGeneralBol STIXGeneralItalic"
).split()
CHARACTERS = string.digits + string.ascii_lowercase

Font = ImageFont.FreeTypeFont
Pixels = NDArray[np.float32]


def lines(count: int, seed: int) -> list[str]:
    """Different lines of one to three words, now and then with a number, out of Python's manual."""
    rng = np.random.default_rng(seed)
    words = sorted(
        {word for text in topics.values() for word in re.findall("[A-Za-z]{3,10}", text)}
    )
    found: dict[str, None] = {}
    while len(found) < count:
        parts = [str(word) for word in rng.choice(words, rng.integers(1, 4))]
        if rng.random() < 0.3:
            parts.append(str(rng.integers(10, 10_000)))
        if len(text := " ".join(parts)) <= 22:
            found[text] = None
    return list(found)


def captchas(count: int, seed: int) -> list[str]:
    """Different words of four digits and letters."""
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(rng.choice(list(CHARACTERS), 4))] = None
    return list(found)


def draw_line(text: str, rng: np.random.Generator) -> Image.Image:
    """A line of text, dark on light or the reverse, blurred and noisy; 48 pixels high."""
    font = _font(rng, int(rng.integers(28, 40)))
    left, top, right, bottom = font.getbbox(text)
    width, height = int(right - left) + 16, int(bottom - top) + 16
    paper, ink = rng.integers(190, 256, 3), rng.integers(0, 90, 3)
    if rng.random() < 0.2:
        paper, ink = ink, paper
    image = Image.new("RGB", (width, height), _colour(paper))
    ImageDraw.Draw(image).text((8 - left, 8 - top), text, fill=_colour(ink), font=font)
    image = image.rotate(rng.uniform(-1, 1), Image.Resampling.BILINEAR, fillcolor=_colour(paper))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.8)))
    noisy = np.asarray(image, np.float32) + rng.normal(0, rng.uniform(0, 10), (height, width, 3))
    image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    return image.resize((round(width * 48 / height), 48), Image.Resampling.BILINEAR)


def draw_captcha(text: str, rng: np.random.Generator) -> Image.Image:
    """Letters turned by chance between dots and lines; 160×64 pixels, grey."""
    image = Image.new("L", (160, 64), int(rng.integers(200, 256)))
    pen = ImageDraw.Draw(image)
    for number, letter in enumerate(text):
        font = _font(rng, int(rng.integers(34, 44)))
        glyph = Image.new("L", (60, 60))
        ImageDraw.Draw(glyph).text((30, 30), letter, fill=255, font=font, anchor="mm")
        glyph = glyph.rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR)
        place = (36 * number + int(rng.integers(-16, -8)), int(rng.integers(-2, 6)))
        image.paste(int(rng.integers(0, 110)), place, glyph)
    for _ in range(3):
        pen.line([(int(x), int(y)) for x, y in rng.integers(0, [160, 64], (2, 2))], fill=120)
    for x, y in rng.integers(0, [160, 64], (60, 2)):
        pen.point((int(x), int(y)), fill=int(rng.integers(0, 160)))
    return image


def padded(image: Image.Image, width: int) -> Pixels:
    """Pixels between -1 and 1, channels first, 48 × ``width``: padded with zeros, or squeezed."""
    image = image.resize((min(image.width, width), 48), Image.Resampling.BILINEAR)
    pixels = np.zeros((3, 48, width), np.float32)
    pixels[:, :, : image.width] = (np.asarray(image, np.float32) / 127.5 - 1).transpose(2, 0, 1)
    return pixels


def _font(rng: np.random.Generator, size: int) -> Font:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / f"{rng.choice(FONTS)}.ttf"), size)


def _colour(values: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)
