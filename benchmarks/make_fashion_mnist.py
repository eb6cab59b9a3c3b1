"""Make the demo's data file from Debian's package ``dataset-fashion-mnist``.

Usage::

    sudo apt-get install dataset-fashion-mnist
    python benchmarks/make_fashion_mnist.py [FOLDER] [-o OUTPUT]

The file holds the first 20,000 training images and all 10,000 test images, in their original
order: ``train_images`` uint8 [20000, 28, 28], ``train_labels`` uint8 [20000], ``test_images``
uint8 [10000, 28, 28], ``test_labels`` uint8 [10000]. The same input gives the same bytes with
the same versions of numpy and zlib; the arrays are the same with any.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DEFAULT_FOLDER = Path("/usr/share/datasets/fashion-mnist")
OUTPUT = Path(__file__).parent / "data" / "fashion-mnist.npz"
TRAIN_IMAGES = 20_000
MOST_BYTES = 14_000_000


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes.

    The header is two zero bytes, the type (8 is unsigned byte), the number of axes, and one
    big-endian 32-bit size per axis (http://yann.lecun.com/exdb/mnist/).

    Raises:
        ValueError: Another header, or another amount of data than it says.
    """
    with gzip.open(path) as file:
        content = file.read()
    if content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path}: is not an IDX file of unsigned bytes")
    axes = content[3]
    shape = np.frombuffer(content, dtype=">u4", count=axes, offset=4)
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes)
    if values.size != shape.prod(dtype=np.int64):
        raise ValueError(f"{path}: holds {values.size} values; its header says {shape.tolist()}")
    return values.reshape(shape.tolist())


def read_arrays(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """The four arrays of the data file, from the folder of the package's four files."""
    return {
        "train_images": read_idx(folder / "train-images-idx3-ubyte.gz")[:TRAIN_IMAGES],
        "train_labels": read_idx(folder / "train-labels-idx1-ubyte.gz")[:TRAIN_IMAGES],
        "test_images": read_idx(folder / "t10k-images-idx3-ubyte.gz"),
        "test_labels": read_idx(folder / "t10k-labels-idx1-ubyte.gz"),
    }


def main(arguments: list[str] | None = None) -> int:
    """Write the file; the exit code is 2 if it can't be made."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT)
    options = parser.parse_args(arguments)
    temporary = options.output.with_name(f".{options.output.name}.part.npz")
    try:
        np.savez_compressed(temporary, allow_pickle=False, **read_arrays(options.folder))
        size = temporary.stat().st_size
        if size > MOST_BYTES:
            raise ValueError(f"{options.output}: would have {size} bytes, more than {MOST_BYTES}")
        temporary.replace(options.output)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        temporary.unlink(missing_ok=True)
    print(f"{options.output}: {size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
