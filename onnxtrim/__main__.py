"""``python -m onnxtrim`` is the command ``onnxtrim``."""

from onnxtrim.toolkit.cli import main

if __name__ == "__main__":
    main()
