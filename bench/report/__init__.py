"""One offline HTML file, and pictures, from the files of a sweep."""

from __future__ import annotations

from onnxtrim.bench.report.page import write_report
from onnxtrim.bench.report.pictures import write_plots

__all__ = ["write_plots", "write_report"]
